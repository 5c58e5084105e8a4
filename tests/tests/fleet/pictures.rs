//! Pictures of a fleet in a bucket, with a stand-in for its store.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Bucket, Database, Server, binary};

use super::{LEASE, until};

const PICTURES: &str = "s3://pictures/of/mine";

fn launch(database: &Database, bucket: &Bucket, flags: &[&str]) -> Server {
    Server::launch_on(&database.url(), &[&["--lease", LEASE], flags].concat(), &bucket.environment())
}

/// A server without workers and one with one, whose pictures lie in a bucket.
async fn fleet(database: &Database, bucket: &Bucket) -> (Server, Server) {
    let worker = launch(database, bucket, &["--pictures", PICTURES]);
    worker.until_health(&["READY"]).await;
    // This one takes the bucket from the database.
    let door = launch(database, bucket, &["--workers", "0"]);
    door.until_health(&["READY"]).await;
    (door, worker)
}

fn quick(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "a", "width": 512}})
}

/// A prediction with the picture of another server's prediction.
async fn with_picture(door: &Server, id: &str, of: &str) -> Value {
    let picture = door.get(&format!("/predictions/{of}")).await.json["output"].clone();
    json!({"id": id, "input": {"prompt": "b", "width": 1024, "image": picture}})
}

/// Waits for something that is not told by a server.
async fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_shows_what_lies_in_the_bucket() {
    let Some(database) = Database::start() else { return };
    let bucket = Bucket::start().await;
    let (door, worker) = fleet(&database, &bucket).await;
    let made = door.predict(&quick("a")).await;
    assert_eq!(made.json["status"], "succeeded", "{}", made.text);
    assert!(made.json["output"].as_str().unwrap().starts_with("data:image/png;base64,"));
    let given = door.predict(&with_picture(&door, "b", "a").await).await;
    assert_eq!(given.json["status"], "succeeded", "{}", given.text);
    let file = given.json["input"]["image"].as_str().unwrap();
    let file = file.strip_prefix(&door.url).unwrap();
    assert!(bucket.pictures().iter().all(|name| name.starts_with("of/mine/")) && bucket.pictures().len() == 3);
    assert_eq!(database.sql("SELECT count(*) FROM syncdiffusion.pictures"), "0\n");
    for server in [&door, &worker] {
        assert_eq!(server.get("/predictions/a").await.json["output"], made.json["output"]);
        for path in ["/predictions/a/output", "/predictions/a/output?width=256", "/predictions/b/output", file] {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
    }
    assert_eq!(bucket.pictures().len(), 4, "with the small copy");
    for id in ["a", "b"] {
        let path = format!("/predictions/{id}");
        assert_eq!(worker.json("DELETE", &path, &[], &json!(null)).await.status, 204);
    }
    wait("the objects stay", || bucket.pictures().is_empty()).await;
    assert_eq!(door.get(file).await.status, 404);
    assert!(!door.log().contains("hush") && !worker.log().contains("hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_away_and_comes_back() {
    let Some(database) = Database::start() else { return };
    let bucket = Bucket::start().await;
    let (door, worker) = fleet(&database, &bucket).await;
    assert_eq!(door.predict(&quick("before")).await.json["status"], "succeeded");
    let given = with_picture(&door, "given", "before").await;
    bucket.be_away(true);
    for path in ["/predictions/before", "/predictions/before/output"] {
        let away = door.get(path).await;
        assert_eq!(away.status, 503, "{path}: {}", away.text);
        let says = "the bucket `s3://pictures/of/mine` of the pictures cannot be read: it answered 503 Service Unavailable, SlowDown";
        assert!(away.text.contains(says), "{}", away.text);
    }
    let refused = door.predict_async(&given).await;
    let says = "the bucket `s3://pictures/of/mine` of the pictures cannot be written to";
    assert!(refused.status == 503 && refused.text.contains(says), "{}", refused.text);
    assert_eq!(door.get("/predictions/given").await.status, 404, "it was not accepted");
    // What needs nothing from the bucket is accepted, drawn, and stored when it is back.
    door.until_health(&["READY"]).await;
    for id in ["c", "d"] {
        assert_eq!(door.predict_async(&quick(id)).await.status, 202);
    }
    worker.logged("a picture is not in the bucket yet").await;
    // Both are drawn, one after the other: that one cannot be stored keeps no worker.
    let claimed = "SELECT count(*) FROM syncdiffusion.predictions WHERE status = 'processing'";
    wait("the second is not drawn", || database.sql(claimed) == "2\n").await;
    worker.until_metric("syncdiffusion_bucket_failures_total", 2.0).await;
    bucket.be_away(false);
    for id in ["c", "d"] {
        assert_eq!(door.ended(id).await["status"], "succeeded");
        assert_eq!(door.get(&format!("/predictions/{id}/output")).await.status, 200);
    }
    assert_eq!(bucket.pictures().len(), 3, "each is put once");
    assert_eq!(door.predict_async(&given).await.status, 202);
    assert_eq!(door.ended("given").await["status"], "succeeded");
}

/// How many objects rows name.
fn named(database: &Database) -> String {
    database.sql("SELECT count(*) FROM syncdiffusion.objects")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_server_puts_is_removed_when_its_end_is_refused() {
    let Some(database) = Database::start() else { return };
    let bucket = Bucket::start().await;
    let (door, worker) = fleet(&database, &bucket).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("held", &go)).await.status, 202);
    door.until("/predictions/held", |is| is["status"] == "processing").await;
    worker.signal("STOP");
    let other = launch(&database, &bucket, &["--pictures", PICTURES]);
    other.until_health(&["READY", "BUSY"]).await;
    let attempts = "SELECT attempts, status FROM syncdiffusion.predictions";
    wait("nobody else runs it", || database.sql(attempts) == "2|processing\n").await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(door.ended("held").await["status"], "succeeded");
    worker.signal("CONT");
    worker.logged("taken for dead").await;
    worker.until_health(&["READY"]).await;
    wait("an object is left", || bucket.pictures().len() == 1 && named(&database) == "1\n").await;
    assert_eq!(door.get("/predictions/held/output").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_has_put_is_swept() {
    let Some(database) = Database::start() else { return };
    let bucket = Bucket::start().await;
    let (door, mut worker) = fleet(&database, &bucket).await;
    assert_eq!(door.predict(&quick("a")).await.json["status"], "succeeded");
    bucket.hold(true);
    assert_eq!(door.predict_async(&quick("b")).await.status, 202);
    // Its picture is there, and its end is not stored.
    wait("nothing is put", || bucket.pictures().len() == 2).await;
    worker.kill();
    bucket.hold(false);
    let orphans = bucket.pictures();
    assert_eq!((orphans.len(), named(&database)), (2, "1\n".to_owned()));
    let again = launch(&database, &bucket, &[]);
    again.until_health(&["READY", "BUSY"]).await;
    assert_eq!(door.ended("b").await["status"], "succeeded");
    assert_eq!((bucket.pictures().len(), named(&database)), (3, "2\n".to_owned()));
    // A day later.
    bucket.age(".png", Duration::from_hours(30));
    database.sql("UPDATE syncdiffusion.settings SET value = '0' WHERE name = 'pictures_swept'");
    wait("the orphan stays", || bucket.pictures().len() == 2).await;
    for id in ["a", "b"] {
        assert_eq!(door.get(&format!("/predictions/{id}/output")).await.status, 200);
    }
}

/// What `serve` and `doctor` say of a bucket that cannot be used.
fn refused(database: &Database, flags: &[&str], environment: &[(&str, &str)]) -> String {
    let run = |command: &str, more: &[&str]| {
        let mut command = {
            let mut program = Command::new(binary());
            program.args([command, "--host", "127.0.0.1", "--port", "0", "--workers", "0"]);
            program
        };
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SYNCDIFFUSION_S3_ENDPOINT"] {
            command.env_remove(name);
        }
        command.args(["--database", &database.url()]).args(flags).args(more);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(1) && !said.contains("hush"), "{said}");
        said
    };
    let said = run("serve", &[]);
    let report = run("doctor", &["--json"]);
    let report: Value = serde_json::from_str(report.lines().next().unwrap()).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "pictures").unwrap();
    assert_eq!(check["verdict"], "problem", "{report}");
    let found = check["found"].as_str().unwrap();
    assert!(said.contains(found), "doctor says `{found}`, and serve {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_told_at_the_start() {
    let Some(database) = Database::start() else { return };
    let bucket = Bucket::start().await;
    let endpoint = ("SYNCDIFFUSION_S3_ENDPOINT", &*bucket.url);
    let wrong = [("AWS_ACCESS_KEY_ID", "wrong"), ("AWS_SECRET_ACCESS_KEY", "hush-hush"), endpoint];
    // The table of nodes is made by the first start, and nothing else is.
    let said = refused(&database, &["--pictures", PICTURES], &wrong);
    assert!(said.contains("cannot be written to: it answered 403 Forbidden, InvalidAccessKeyId"), "{said}");
    let said = refused(&database, &["--pictures", "s3://nowhere"], &bucket.environment());
    assert!(said.contains("`s3://nowhere` of the pictures cannot be written to: it answered 404"), "{said}");
    let nobody = [wrong[1], ("AWS_ACCESS_KEY_ID", "x"), ("SYNCDIFFUSION_S3_ENDPOINT", "http://127.0.0.1:1")];
    let said = refused(&database, &["--pictures", PICTURES], &nobody);
    assert!(said.contains("cannot be written to: ") && said.contains("efused"), "{said}");
    assert_eq!(database.sql("SELECT count(*) FROM syncdiffusion.nodes"), "0\n", "it has left no trace");
    assert_eq!(database.sql("SELECT count(*) FROM syncdiffusion.settings WHERE name LIKE 'pictures%'"), "0\n");
    assert!(bucket.names().is_empty());

    let first = launch(&database, &bucket, &["--workers", "0", "--pictures", PICTURES]);
    let said = refused(&database, &["--pictures", "s3://pictures"], &bucket.environment());
    assert!(said.contains("have their pictures in `s3://pictures/of/mine`, and `--pictures` says `s3://pictures`"));
    let elsewhere = Bucket::start().await;
    let said = refused(&database, &[], &elsewhere.environment());
    assert!(said.contains("this is not the bucket that the servers of the database use"), "{said}");
    // Without an address, that of the others counts.
    let keys = [bucket.environment()[0], bucket.environment()[1]];
    let other = Server::launch_on(&database.url(), &["--workers", "0"], &keys);
    other.logged("pictures are kept in a bucket").await;
    drop((first, other));
}

#[test]
fn a_bucket_needs_a_database() {
    let output = Command::new(binary()).args(["serve", "--pictures", PICTURES]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--database <URL>"), "{said}");
    let output = Command::new(binary()).args(["serve", "--database", "x", "--pictures", "pictures"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("write `s3://bucket` or `s3://bucket/prefix`"), "{said}");
}
