//! Pictures in a bucket: what lies there, what goes from there and when, and who agrees on it. Every case of the suite
//! runs with one, too.

use std::time::Instant;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::super::objects::Put;
use super::super::place::Place;
use super::super::putting::{Kept, MAX_KEPT};
use super::super::{agree, orphans, schema};
use super::*;
use crate::bucket::Access;
use crate::store::suite::{end, in_memory};
use crate::store::work::{Beat as Beats, OBJECTS_WIRE};
use crate::wire::Output;

const NOWHERE: &str = "http://127.0.0.1:1";
const URL: &str = "s3://pictures/of/mine";

/// A node whose pictures go into a bucket, the bucket, and the URL of its database.
fn node() -> Option<(Postgres, Arc<InMemory>, String)> {
    let url = database()?;
    let node = Postgres::open(&url).unwrap();
    let access = in_memory();
    assert_eq!(node.keep_pictures(Some(URL), access.clone()).unwrap().as_deref(), Some(URL));
    // No round but those of the test.
    let now = "UPDATE syncdiffusion.settings SET value = extract(epoch FROM now())::text WHERE name";
    execute(&url, &format!("{now} = '{}'", agree::SWEPT));
    Some((node, access.memory.unwrap(), url))
}

/// The names of all pictures in a bucket.
async fn names(bucket: &InMemory) -> Vec<Path> {
    let found: Vec<_> = futures_util::StreamExt::collect(bucket.list(None)).await;
    let found = found.into_iter().map(|meta: object_store::Result<object_store::ObjectMeta>| meta.unwrap().location);
    found.filter(|path| path.extension() == Some("png")).collect()
}

/// Waits until a bucket has this many pictures.
async fn until(bucket: &InMemory, count: usize) {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let found = names(bucket).await;
        if found.len() == count {
            return;
        }
        assert!(Instant::now() < end, "not {count} but {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A bucket that nobody answers for.
fn refuse(store: &Postgres) {
    crate::install_crypto();
    let address = NOWHERE.to_owned();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "x".to_owned().into()));
    let access = Access { endpoint: Some(address), environment: keys.to_vec(), ..Access::default() };
    let place = Place::new(URL, "folder", &access).unwrap();
    store.shared.objects.set_place(Arc::new(place), true);
}

/// Executes the statement of an error, which lets a database go on once the mark is gone.
fn go_on(url: &str, error: &str) {
    let statement = error.split('`').find(|part| part.starts_with("UPDATE ")).expect(error);
    execute(url, statement);
}

/// Removes an object as an operator does, by the path that is shown.
async fn remove(bucket: &InMemory, place: &Place, key: &str) {
    let shown = place.shown(key);
    bucket.delete(&Path::from(shown.trim_matches('`').trim_start_matches("s3://pictures/"))).await.unwrap();
}

fn given(bytes: &[u8]) -> Picture {
    Picture { which: Which { kind: Kind::Input("image".to_owned()), n: 0 }, ..picture(bytes) }
}

#[tokio::test]
async fn pictures_lie_in_the_bucket_and_go_with_their_prediction() {
    let Some((a, bucket, url)) = node() else { return };
    let b = a.join().unwrap();
    end(&a, record("a"), b"drawn").await;
    a.add_picture("a", 1, Picture { which: Which { kind: Kind::Thumbnail(256), n: 0 }, ..picture(b"small") })
        .await
        .unwrap();
    let found = names(&bucket).await;
    assert!(found.len() == 2 && found.iter().all(|path| path.as_ref().starts_with("of/mine/")), "{found:?}");
    // 160 bits in hexadecimal, twice: the folder and the name.
    assert!(found.iter().all(|path| path.as_ref().len() == "of/mine/".len() + 40 + 1 + 44), "{found:?}");
    execute(&url, "DO $$ BEGIN ASSERT (SELECT count(*) = 0 FROM syncdiffusion.pictures); END $$");
    execute(&url, "DO $$ BEGIN ASSERT (SELECT bytes = 10 FROM syncdiffusion.predictions); END $$");
    assert_eq!(b.get("a").await.unwrap().unwrap().picture.as_deref(), Some(&b"drawn"[..]));
    a.add_picture("gone", 1, picture(b"late")).await.unwrap();
    // A copy of what is gone is not kept.
    until(&bucket, 2).await;
    assert!(b.delete("a").await.unwrap());
    until(&bucket, 0).await;
}

#[tokio::test]
async fn tables_and_the_bucket_are_beside_each_other() {
    let Some(url) = database() else { return };
    let before = Postgres::open(&url).unwrap();
    let named = |bytes: &[u8], name: &str| Picture { file: Some(name.to_owned()), ..picture(bytes) };
    let finish = async |store: &Postgres, id: &str, picture: Picture| {
        accept(store, record(id)).await;
        let claimed = claim(store).await;
        store.finish(&claimed.claim, succeeded(&claimed), vec![picture]).await.unwrap();
    };
    finish(&before, "old", named(b"in a table", "old.png")).await;
    let (after, access) = (Postgres::open(&url).unwrap(), in_memory());
    after.keep_pictures(Some(URL), access.clone()).unwrap();
    finish(&after, "new", named(b"in the bucket", "new.png")).await;
    // The one that was started before reads both, if it can reach the bucket.
    crate::install_crypto();
    let environment = vec![("AWS_METADATA_ENDPOINT".to_owned(), NOWHERE.to_owned().into())];
    let nowhere = Access { endpoint: Some(NOWHERE.to_owned()), environment, ..Access::default() };
    before.shared.objects.set_access(nowhere);
    let error = before.get("new").await.unwrap_err().to_string();
    assert!(error.contains("the bucket `s3://pictures/of/mine` of the pictures cannot be"), "{error}");
    assert!(error.contains("set `AWS_ACCESS_KEY_ID`"), "{error}");
    let late = Postgres::open(&url).unwrap();
    late.shared.objects.set_access(access);
    for store in [&after, &late] {
        for (id, bytes) in [("old", &b"in a table"[..]), ("new", b"in the bucket")] {
            assert_eq!(store.get(id).await.unwrap().unwrap().picture.as_deref(), Some(bytes));
            assert_eq!(&*store.picture(id, Which::FIRST).await.unwrap().unwrap().bytes, bytes);
            assert_eq!(store.file(&format!("{id}.png")).await.unwrap().as_deref(), Some(bytes));
        }
    }
    // It still writes into tables.
    end(&late, record("later"), b"in a table").await;
    execute(&url, "DO $$ BEGIN ASSERT (SELECT count(*) = 2 FROM syncdiffusion.pictures); END $$");
    let bytes = Retention { bytes: Some(15), ..Retention::default() };
    assert_eq!(after.sweep(bytes).await.unwrap(), 2, "retention counts both");
}

#[tokio::test]
async fn a_refused_or_canceled_end_leaves_nothing() {
    let Some((a, bucket, _)) = node() else { return };
    let b = a.join().unwrap();
    accept(&a, record("fenced")).await;
    let held = claim(&b).await;
    let Beats::Alive { nodes, .. } = a.beat(&About::default(), Vec::new()).await.unwrap() else { panic!() };
    let dead = nodes.last().unwrap();
    assert!(a.reap(dead.node, dead.beat).await.unwrap());
    let refused = b.finish(&held.claim, succeeded(&held), vec![picture(b"late")]).await.unwrap();
    assert_eq!(refused, Outcome::Fenced);
    until(&bucket, 0).await;
    let again = claim(&a).await;
    a.finish(&again.claim, succeeded(&again), vec![picture(b"good")]).await.unwrap();
    accept(&a, record("stopped")).await;
    let stopped = claim(&a).await;
    assert_eq!(a.stop("stopped").await.unwrap(), Stopped::Asked);
    let ended = a.finish(&stopped.claim, succeeded(&stopped), vec![picture(b"in vain")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(record) if record.prediction.status == Status::Canceled));
    until(&bucket, 1).await;
    // What is refused with its pictures leaves none of them either.
    let new = || New { inputs: vec![given(b"given")], ..New::of(record("fenced"), 1.0) };
    let known = a.accept(New { idempotent: true, ..new() }, Room::ANY).await.unwrap();
    assert!(matches!(known, Accepted::Known(stored) if stored.picture.as_deref() == Some(b"good")));
    assert!(matches!(a.accept(new(), Room { jobs: 0, ..Room::ANY }).await.unwrap(), Accepted::Full(_)));
    until(&bucket, 1).await;
}

#[tokio::test]
async fn an_end_whose_answer_is_lost_keeps_its_picture() {
    let Some((_, proxy, b)) = nodes() else { return };
    let (access, a) = (in_memory(), Postgres::open(&proxy.url).unwrap());
    a.keep_pictures(Some(URL), access.clone()).unwrap();
    let bucket = access.memory.unwrap();
    accept(&b, record("a")).await;
    let claimed = claim(&a).await;
    proxy.lose(1);
    let ended = a.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"png")]).await.unwrap();
    assert!(matches!(ended, Outcome::Ended(_)) && proxy.lost() == 1);
    assert_eq!(names(&bucket).await.len(), 1);
    assert_eq!(a.get("a").await.unwrap().unwrap().picture.as_deref(), Some(&b"png"[..]));
}

#[tokio::test]
async fn a_bucket_that_stays_away_fails_what_was_drawn_and_nothing_else() {
    let Some((a, _bucket, _)) = node() else { return };
    end(&a, record("before"), b"png").await;
    accept(&a, record("named")).await;
    let named = claim(&a).await;
    let mut told = succeeded(&named);
    let output = Some(Output::Whole("https://example.com/files/a.png".into()));
    told.prediction.output.clone_from(&output);
    a.finish(&named.claim, told, vec![picture(b"png")]).await.unwrap();
    refuse(&a);
    assert_eq!(a.get("named").await.unwrap().unwrap().into_prediction().output, output, "a URL needs no bytes");
    a.get("before").await.unwrap_err();
    assert_eq!(a.record("before").await.unwrap().unwrap().prediction.id, "before", "it needs no picture");
    let error = a.picture("before", Which::FIRST).await.unwrap_err().to_string();
    assert!(error.contains("the bucket `s3://pictures/of/mine` of the pictures cannot be read"), "{error}");
    let new = New { inputs: vec![given(b"given")], ..New::of(record("given"), 1.0) };
    let error = a.accept(new, Room::ANY).await.unwrap_err().to_string();
    assert!(error.contains("the bucket `s3://pictures/of/mine` of the pictures cannot be written to"), "{error}");
    assert!(a.get("given").await.unwrap().is_none());
    accept(&a, record("a")).await;
    accept(&a, record("stopped")).await;
    let (first, second) = (claim(&a).await, claim(&a).await);
    *a.shared.objects.max_putting.lock().unwrap() = Duration::from_secs(1);
    let Outcome::Ended(failed) = a.finish(&first.claim, succeeded(&first), vec![picture(b"png")]).await.unwrap() else {
        panic!("it ends")
    };
    let why = failed.prediction.error.unwrap();
    assert!(failed.prediction.status == Status::Failed && why.contains("could not be stored for"), "{why}");
    assert_eq!(status(&a, "a").await, Status::Failed);
    // A wish to stop is not waited with.
    *a.shared.objects.max_putting.lock().unwrap() = Duration::from_hours(1);
    let ending = a.finish(&second.claim, succeeded(&second), vec![picture(b"png")]);
    assert_eq!(a.stop("stopped").await.unwrap(), Stopped::Asked);
    let Outcome::Ended(canceled) = ending.await.unwrap() else { panic!("it ends") };
    assert_eq!(canceled.prediction.status, Status::Canceled);
}

#[tokio::test]
async fn what_a_failed_try_has_put_is_not_put_again() {
    let Some((a, bucket, _)) = node() else { return };
    accept(&a, record("a")).await;
    let claimed = claim(&a).await;
    let (place, mut objects) = (a.shared.objects.for_new().unwrap(), Vec::new());
    let pictures = [picture(b"png")];
    for _ in 0..2 {
        let put = a.shared.put_drawn(&place, claimed.claim, &pictures, &mut objects).await;
        assert!(matches!(put, Put::Done));
    }
    assert_eq!(names(&bucket).await.len(), 1);
    // Unless a sweep might remove it before its row is written.
    let (remembered, since) = (&a.shared.objects, Instant::now());
    for (after, left) in [(Duration::ZERO, 1), (MAX_KEPT, 0)] {
        remembered.keep(claimed.claim, Kept { since, objects: objects.clone() });
        assert_eq!(remembered.take(&claimed.claim, since + after).objects.len(), left);
    }
}

#[tokio::test]
async fn orphans_are_swept_and_nothing_else() {
    let Some((a, bucket, url)) = node() else { return };
    end(&a, record("a"), b"png").await;
    let place = a.shared.objects.for_new().unwrap();
    // Nothing is removed but by the test.
    a.shared.objects.set_place(Arc::clone(&place), false);
    for _ in 0..3 {
        place.put(&picture(b"orphan")).await.unwrap();
    }
    bucket.put(&Path::from("of/mine/others.png"), b"others".to_vec().into()).await.unwrap();
    assert_eq!(orphans::round(&a.shared, &place, orphans::MIN_AGE).await.unwrap(), 0, "they are too young");
    assert_eq!(orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap(), 3);
    assert_eq!(a.get("a").await.unwrap().unwrap().picture.as_deref(), Some(&b"png"[..]));
    assert_eq!(names(&bucket).await.len(), 2, "its own, and what lies outside of its folder");
    // A database that was restored from a copy made before this round removes nothing.
    execute(&url, &format!("UPDATE syncdiffusion.settings SET value = 'older' WHERE name = '{}'", agree::ROUNDS));
    place.put(&picture(b"of the other")).await.unwrap();
    let error = orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap_err().to_string();
    a.delete("a").await.unwrap();
    orphans::drain(&a.shared, &place).await.unwrap_err();
    assert_eq!(names(&bucket).await.len(), 3);
    go_on(&url, &error);
    orphans::drain(&a.shared, &place).await.unwrap_err();
    remove(&bucket, &place, agree::MARK).await;
    orphans::drain(&a.shared, &place).await.unwrap();
    assert_eq!(orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(names(&bucket).await.len(), 1);
    // What is lost of the agreement comes again.
    remove(&bucket, &place, agree::ROUND).await;
    agree::is_theirs(&place).await.unwrap_err();
    assert_eq!(orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap(), 0);
    agree::is_theirs(&place).await.unwrap();
}

#[tokio::test]
async fn of_two_databases_with_one_folder_none_removes_anything() {
    let (Some((a, bucket, url)), Some(other)) = (node(), database()) else { return };
    let copy = Postgres::open(&other).unwrap();
    for name in ["pictures", "pictures_endpoint", "pictures_folder", agree::ROUNDS, agree::SWEPT] {
        let value = a.known(name).unwrap().unwrap();
        execute(&other, &format!("INSERT INTO syncdiffusion.settings VALUES ('{name}', '{value}')"));
    }
    let access = || Access { memory: Some(Arc::clone(&bucket)), ..Access::default() };
    assert_eq!(copy.keep_pictures(None, access()).unwrap().as_deref(), Some(URL));
    let (place, theirs) = (a.shared.objects.for_new().unwrap(), copy.shared.objects.for_new().unwrap());
    end(&a, record("since"), b"png").await;
    // Nothing is removed but by the test.
    a.shared.objects.set_place(Arc::clone(&place), false);
    copy.shared.objects.set_place(Arc::clone(&theirs), false);
    let told = |url: &str| crate::store::inspect_pictures(url, None, access()).unwrap().unwrap().warnings.join("; ");
    assert_eq!((told(&url), told(&other)), (String::new(), String::new()));
    // The copy is first, and cannot know yet that it is one.
    assert_eq!(orphans::round(&copy.shared, &theirs, orphans::MIN_AGE).await.unwrap(), 0);
    let before = told(&url);
    let error = orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.contains("of which one seems to be a copy"), "{error}");
    assert_eq!(before, told(&url));
    assert!(error.ends_with(&before), "`doctor` tells what the log does: {before}");
    let of_copy = orphans::round(&copy.shared, &theirs, Duration::ZERO).await.unwrap_err().to_string();
    assert!(of_copy.contains("of which one seems to be a copy"), "{of_copy}");
    assert!(of_copy.ends_with(&told(&other)), "{}", told(&other));
    // Servers start all the same.
    Postgres::open(&url).unwrap().keep_pictures(None, access()).unwrap();
    // The operator says which of them goes on.
    go_on(&url, &error);
    remove(&bucket, &place, agree::MARK).await;
    assert_eq!(orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap(), 0);
    // The other one was left running with this folder.
    orphans::round(&copy.shared, &theirs, Duration::ZERO).await.unwrap_err();
    orphans::round(&a.shared, &place, Duration::ZERO).await.unwrap_err();
    assert_eq!(names(&bucket).await.len(), 1);
}

#[tokio::test]
async fn an_object_that_is_lost_is_not_a_picture_that_never_was() {
    let Some((a, bucket, _)) = node() else { return };
    end(&a, record("a"), b"png").await;
    bucket.delete(&names(&bucket).await[0]).await.unwrap();
    let error = a.picture("a", Which::FIRST).await.unwrap_err().to_string();
    assert!(error.contains("is not in the bucket any more"), "{error}");
}

#[test]
fn all_nodes_have_one_bucket() {
    let Some((a, bucket, url)) = node() else { return };
    let keep = |asked: Option<&str>, bucket: &Arc<InMemory>| {
        let access = Access { memory: Some(Arc::clone(bucket)), ..Access::default() };
        Postgres::open(&url).unwrap().keep_pictures(asked, access).map_err(|error| error.to_string())
    };
    assert_eq!(keep(None, &bucket).unwrap().as_deref(), Some(URL));
    assert_eq!(keep(Some("s3://pictures/of/mine/"), &bucket).unwrap().as_deref(), Some(URL));
    let error = keep(Some("s3://others"), &bucket).unwrap_err();
    assert!(
        error.contains("have their pictures in `s3://pictures/of/mine`, and `--pictures` says `s3://others`"),
        "{error}"
    );
    let error = keep(None, &Arc::new(InMemory::new())).unwrap_err();
    assert!(error.contains("this is not the bucket that the servers of the database use"), "{error}");
    let none = Postgres::open(&database().unwrap()).unwrap();
    assert_eq!(none.keep_pictures(None, Access::default()).unwrap(), None);
    drop(a);
}

#[tokio::test]
async fn older_programs_are_kept_away_once_there_is_a_bucket() {
    let Some(url) = database().filter(|_| !server::is_pooled()) else { return };
    execute(&url, schema::STEPS[0]);
    let least = |least: u32| {
        let sql = format!("ASSERT (SELECT value = '{least}' FROM syncdiffusion.settings WHERE name = 'least_version')");
        execute(&url, &format!("DO $$ BEGIN {sql}; END $$"));
    };
    let found = crate::store::inspect_database(&url).unwrap().found;
    assert!(found.ends_with("it has tables of version 1, which the first start brings to version 3"), "{found}");
    let a = Postgres::open(&url).unwrap();
    least(1);
    // One that beats and does not say what it knows is of an older program.
    execute(&url, "INSERT INTO syncdiffusion.nodes (node, about) VALUES (99, '{\"version\": \"0.1.0\"}')");
    let done = Arc::new(AtomicU32::new(0));
    let (beats, over) = (url.clone(), Arc::clone(&done));
    let beating = thread::spawn(move || {
        while over.load(Ordering::Relaxed) == 0 {
            execute(&beats, "UPDATE syncdiffusion.nodes SET beat = beat + 1 WHERE node = 99");
            thread::sleep(Duration::from_millis(100));
        }
    });
    let access = in_memory();
    let error = a.keep_pictures(Some(URL), access.clone()).unwrap_err().to_string();
    assert!(error.contains("servers of an older version use this database"), "{error}");
    least(1);
    done.store(1, Ordering::Relaxed);
    beating.join().unwrap();
    a.keep_pictures(Some(URL), access).unwrap();
    least(2);
    // What an older program could not read is not given to it.
    let new = New { inputs: vec![given(b"given")], ..New::of(record("given"), 1.0) };
    a.accept(new, Room::ANY).await.unwrap();
    accept(&a, record("plain")).await;
    let old = a.claim(Wants { wire: OBJECTS_WIRE - 1, ..Wants::any(9) }).await.unwrap();
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].record.prediction.id, "plain");
    let new = claim(&a).await;
    let given = a.picture(&new.record.prediction.id, given(b"").which).await.unwrap().unwrap();
    assert_eq!(&*given.bytes, b"given");
}

#[tokio::test]
async fn much_that_waits_for_the_bucket_stops_claims() {
    let Some((a, _bucket, _)) = node() else { return };
    accept(&a, record("a")).await;
    let much = a.shared.objects.count(1 << 30);
    assert!(a.claim(Wants::any(1)).await.unwrap().is_empty());
    drop(much);
    claim(&a).await;
}
