//! A disk that is full, locked, or gone.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

/// Waits until trouble has come or gone.
async fn trouble(store: &Sqlite, there: bool) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    while store.trouble().is_some() != there {
        assert!(Instant::now() < until, "trouble: {:?}", store.trouble());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.trouble().unwrap_or_default()
}

#[tokio::test]
async fn nothing_refused_is_done_while_another_program_has_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    end(&store, record("ended"), b"png").await;
    accept(&store, record("runs")).await;
    accept(&store, record("waits")).await;
    let runs = claim(&store).await;
    let other = database(dir.path());
    // Behind the claim, which is written after it was answered.
    store.shared.writer.write(|_| Ok(()), |done| done).await.unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let why = store.accept(New::of(record("new"), 1.0), Room::ANY).await.unwrap_err().to_string();
    assert!(why.contains("predictions.sqlite") && why.contains("another program has locked it"), "{why}");
    assert!(store.stop("waits").await.is_err() && store.stop("runs").await.is_err());
    assert!(store.delete("ended").await.is_err());
    assert!(store.finish(&runs.claim, succeeded(&runs), vec![picture(b"png")]).await.is_err());
    assert!(store.trouble().unwrap().contains("locked"));
    assert_eq!(store.board().waiting, 1, "reads are answered, and nothing has changed");
    other.execute_batch("ROLLBACK").unwrap();

    trouble(&store, false).await;
    assert!(store.get("new").await.unwrap().is_none());
    assert_eq!(store.get("ended").await.unwrap().unwrap().picture.as_deref(), Some(&b"png"[..]));
    let Outcome::Ended(end) = store.finish(&runs.claim, succeeded(&runs), vec![picture(b"png")]).await.unwrap() else {
        panic!("the claim holds")
    };
    assert_eq!(end.prediction.status, Status::Succeeded, "the stop that was refused is not obeyed");
    assert_eq!(claim(&store).await.record.prediction.id, "waits");
}

#[tokio::test]
async fn an_end_is_stored_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path()).unwrap();
    let named = |n| Picture { which: Which { n, ..Which::FIRST }, file: Some("taken".to_owned()), ..picture(b"png") };
    for (id, pictures) in [("a", vec![named(0)]), ("b", vec![picture(b"first"), named(1)])] {
        accept(&store, record(id)).await;
        let claimed = claim(&store).await;
        let end = store.finish(&claimed.claim, succeeded(&claimed), pictures);
        // One commit with the end: it is stored whatever becomes of that.
        let beside = store.accept(New::of(record(&format!("beside {id}")), 1.0), Room::ANY);
        assert_eq!(end.await.is_ok(), id == "a", "a name is another's");
        assert!(matches!(beside.await.unwrap(), Accepted::New(_)));
        assert_eq!(store.picture("b", Which::FIRST).await.unwrap(), None);
        store.stop(&format!("beside {id}")).await.unwrap();
        if id == "b" {
            assert_eq!(status(&store, "b").await, Status::Processing);
            let end = store.finish(&claimed.claim, succeeded(&claimed), vec![picture(b"first")]).await.unwrap();
            assert!(matches!(end, Outcome::Ended(_)), "the claim holds on");
        }
    }
}

#[tokio::test]
async fn a_folder_that_is_moved_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, away) = (dir.path().join("data"), dir.path().join("away"));
    let store = Sqlite::open(&data).unwrap();
    std::fs::rename(&data, &away).unwrap();
    store.shared.disk.look();
    assert!(store.accept(New::of(record("a"), 1.0), Room::ANY).await.is_err());
    assert!(trouble(&store, true).await.contains("was moved or removed"));
    std::fs::rename(&away, &data).unwrap();
    trouble(&store, false).await;
    accept(&store, record("a")).await;
}

/// A disk of some MiB that only root can make. It is gone when this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(dir.path()).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("NOT RUN: a test of full disks, because only root can mount a tmpfs here");
        None
    }

    /// Fills the disk to its last page.
    fn fill(&self) {
        let mut file = std::fs::File::options().append(true).create(true).open(self.0.path().join("fill")).unwrap();
        for size in [1 << 16, 1 << 12] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_records_can_be_removed_and_an_end_waits() {
    let Some(disk) = SmallDisk::new("6m") else { return };
    let data = disk.0.path().join("data");
    let store = Sqlite::open(&data).unwrap();
    for n in 0..6 {
        end(&store, record(&n.to_string()), &vec![n; 200 << 10]).await;
    }
    accept(&store, record("runs")).await;
    let runs = claim(&store).await;
    disk.fill();
    let big = || vec![picture(&vec![9; 300 << 10])];
    assert!(store.finish(&runs.claim, succeeded(&runs), big()).await.is_err());
    assert!(store.accept(New::of(record("new"), 1.0), Room::ANY).await.is_err());
    assert!(store.trouble().unwrap().contains("full"), "{:?}", store.trouble());
    assert!(store.get("0").await.unwrap().unwrap().picture.is_some(), "everything can be read");
    assert!(store.delete("0").await.unwrap(), "removing is how room is made");
    assert!(store.get("0").await.unwrap().is_none() && store.get("new").await.unwrap().is_none());
    drop(store);

    // A start on a full disk.
    disk.fill();
    let store = Sqlite::open(&data).unwrap();
    assert_eq!(store.list(Query { limit: 9, ..Query::default() }).await.unwrap().len(), 6);
    let runs = claim(&store).await;
    disk.fill();
    assert!(store.accept(New::of(record("new"), 1.0), Room::ANY).await.is_err());
    assert!(store.delete("1").await.unwrap());
    disk.empty();
    trouble(&store, false).await;
    assert!(matches!(store.finish(&runs.claim, succeeded(&runs), big()).await.unwrap(), Outcome::Ended(_)));
    accept(&store, record("new")).await;
}

#[tokio::test]
async fn retention_frees_a_full_disk() {
    let Some(disk) = SmallDisk::new("48m") else { return };
    let store = Sqlite::open(&disk.0.path().join("data")).unwrap();
    for n in 0..30 {
        end(&store, record(&n.to_string()), &vec![n; 1 << 20]).await;
    }
    disk.fill();
    assert_eq!(store.sweep(Retention { count: Some(5), ..Retention::default() }).await.unwrap(), 25);
    trouble(&store, false).await;
    let size = disk.0.path().join("data/predictions.sqlite").metadata().unwrap().len();
    assert!(size < 8 << 20, "{size} bytes are left");
    accept(&store, record("new")).await;
}
