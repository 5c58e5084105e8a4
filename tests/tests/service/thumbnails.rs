//! Small copies of pictures, and the search of the list.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::Server;

fn body(id: &str, prompt: &str) -> Value {
    json!({"id": id, "input": {"prompt": prompt, "num_inference_steps": 1, "width": 1024}})
}

/// Status, media type and bytes of a picture.
async fn picture(server: &Server, path: &str) -> (u16, String, Vec<u8>) {
    let response = server.request("GET", path).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers["content-type"].to_str().unwrap().to_owned(), response.bytes().await.unwrap().to_vec())
}

/// Width and height of a JPEG, as the header of its frame has them.
fn size(jpeg: &[u8]) -> (u16, u16) {
    assert!(jpeg.starts_with(b"\xff\xd8") && jpeg.ends_with(b"\xff\xd9"));
    let frame = jpeg.windows(2).position(|marker| marker == b"\xff\xc0").expect("a baseline frame");
    let number = |at: usize| u16::from_be_bytes([jpeg[frame + at], jpeg[frame + at + 1]]);
    (number(7), number(5))
}

#[tokio::test]
async fn a_copy_is_made_once_and_goes_with_its_picture() {
    for data in ["none", ""] {
        let dir = tempfile::tempdir().unwrap();
        let data = if data.is_empty() { dir.path().to_str().unwrap() } else { data };
        let server = Server::start(&["--data-dir", data]).await;
        server.predict(&body("a b/ü", "a")).await;
        let path = "/predictions/a%20b%2F%C3%BC/output";
        let small = |width: u32| format!("{path}?width={width}");
        let (status, kind, whole) = picture(&server, path).await;
        assert_eq!((status, kind.as_str()), (200, "image/png"));
        let (status, kind, jpeg) = picture(&server, &small(512)).await;
        assert_eq!((status, kind.as_str(), size(&jpeg)), (200, "image/jpeg", (512, 256)));
        assert_eq!(picture(&server, &small(512)).await.2, jpeg);
        assert_eq!(picture(&server, &small(300)).await.2, jpeg, "widths are few");
        assert_eq!(size(&picture(&server, &small(1)).await.2), (64, 32));
        assert_eq!(size(&picture(&server, &small(2048)).await.2), (1024, 512), "no copy is larger than its picture");
        assert_eq!(picture(&server, path).await.2, whole);
        let path_of_many = small(128);
        let many = join_all((0..8).map(|_| picture(&server, &path_of_many))).await;
        assert!(many.iter().all(|one| one == &many[0]) && size(&many[0].2) == (128, 64));
        let path = path.trim_end_matches("/output");
        assert_eq!(server.send(server.request("DELETE", path)).await.status, 204);
        assert_eq!(server.get(&small(512)).await.status, 404);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let server = Server::start(&[]).await;
    server.predict(&body("a", "a")).await;
    for (query, status, word) in [
        ("width=0", 422, "`width` is `0`, not between 1 and 2048"),
        ("width=2049", 422, "`width` is `2049`"),
        ("width=wide", 400, "width"),
        ("width=-1", 400, "width"),
        ("n=x", 400, "n"),
        ("n=1", 404, "no picture `1`"),
        ("n=1&width=64", 404, "no picture `1`"),
    ] {
        let answer = server.get(&format!("/predictions/a/output?{query}")).await;
        let detail = answer.json["detail"].as_str().unwrap_or_default();
        assert!(answer.status == status && detail.contains(word), "{query}: {} {}", answer.status, answer.text);
    }
    assert_eq!(server.get("/predictions/none/output?width=64").await.status, 404);
    let failed = server.predict(&json!({"id": "f", "input": {"prompt": "fail", "num_inference_steps": 1}})).await;
    assert_eq!(failed.json["status"], "failed");
    assert_eq!(server.get("/predictions/f/output?width=64").await.status, 404);
}

#[tokio::test]
async fn prompts_are_searched_page_by_page() {
    let server = Server::start(&[]).await;
    for n in 0..30 {
        let prompt = if n % 3 == 0 { format!("A Lake & {n}") } else { format!("a hill {n}") };
        server.predict(&body(&n.to_string(), &prompt)).await;
    }
    let mut path = "/predictions?q=lake%20%26&limit=4".to_owned();
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = server.get(&path).await.json;
        let results = page["results"].as_array().unwrap();
        found.extend(results.iter().map(|result| result["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = next.strip_prefix(&server.url).unwrap().to_owned();
        assert!(path.contains("q=lake%20%26"), "{path}");
    }
    assert_eq!(found, ["27", "24", "21", "18", "15", "12", "9", "6", "3", "0"]);
    assert_eq!(pages, 3);
    let back = server.get(&path).await.json["previous"].as_str().unwrap().to_owned();
    let back = server.get(back.strip_prefix(&server.url).unwrap()).await.json;
    let ids: Vec<&str> = back["results"].as_array().unwrap().iter().map(|is| is["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["15", "12", "9", "6"]);
    let count = async |query: &str| {
        server.get(&format!("/predictions?limit=100&{query}")).await.json["results"].as_array().unwrap().len()
    };
    assert_eq!((count("q=").await, count("q=HILL").await, count("q=sea").await), (30, 20, 0));
    assert_eq!((count("q=lake&status=succeeded").await, count("q=lake&status=failed").await), (10, 0));
    let long = server.get(&format!("/predictions?q={}", "x".repeat(257))).await;
    assert_eq!(long.status, 422);
    assert!(long.json["detail"].as_str().unwrap().contains("`q` has 257 bytes"), "{}", long.text);
}
