use object_store::memory::InMemory;

use super::*;

#[test]
fn buckets_are_named_by_their_url() {
    assert_eq!(split("s3://b"), Ok(("b", "")));
    assert_eq!(split("s3://b.c-d/pictures/日本/"), Ok(("b.c-d", "pictures/日本/")));
    for wrong in ["b", "s3://", "s3:///x", "s3://key:secret@b", "s3://b?x", "s3://b/../up", "s3://b/a//b", "https://b"]
    {
        assert!(split(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn responses_are_shortened() {
    let answer = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>\
        <AWSAccessKeyId>key</AWSAccessKeyId></Error>";
    assert_eq!(brief(answer), "it answered 403 Forbidden, SignatureDoesNotMatch");
    assert_eq!(
        brief("Server returned non-2xx status code: 500 Internal Server Error: "),
        "it answered 500 Internal Server Error"
    );
    assert_eq!(brief("connection refused\nmore"), "connection refused");
}

#[tokio::test]
async fn objects_are_put_read_listed_and_removed() {
    let access = Access { memory: Some(Arc::new(InMemory::new())), ..Access::default() };
    let bucket = Bucket::new(&Options { url: "s3://b/日本/".to_owned(), access }).unwrap();
    for name in ["f/a", "f/b", "g/c"] {
        bucket.put(name, name.as_bytes(), &[(Attribute::ContentType, "text/plain")]).await.unwrap();
    }
    assert_eq!(bucket.path("f/a").as_ref(), "日本/f/a");
    assert_eq!(&*bucket.get("f/a").await.unwrap().unwrap().bytes, b"f/a");
    assert!(bucket.get("f/c").await.unwrap().is_none());
    let pages: Vec<_> = bucket.list("f").collect().await;
    let names: Vec<_> = pages.into_iter().flat_map(Result::unwrap).map(|listed| listed.name).collect();
    assert_eq!(names, ["a", "b"]);
    let (gone, failed) = bucket.remove("f", &["a".to_owned(), "b".to_owned()]).await;
    assert!(gone == ["a", "b"] && failed.is_none());
    assert!(bucket.get("f/a").await.unwrap().is_none() && bucket.get("g/c").await.unwrap().is_some());
}
