//! The disk of the database is full: what is refused is not done, and what runs ends when there is room.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Database, Dice, Receiver};

use super::fleet;

/// A disk that can be filled and emptied.
trait Disk {
    fn fill(&self, database: &Database);
    fn empty(&self, database: &Database);
}

/// A real one of some MiB, on which the tables are; the log of the database is elsewhere. Only root can make it.
struct Small(TempDir);

impl Small {
    fn new(database: &Database) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m,mode=755", "none"]).arg(dir.path()).output();
        if !mount.is_ok_and(|mount| mount.status.success()) {
            eprintln!("NOT RUN: a test of a full disk below a database, because only root can mount a tmpfs here");
            return None;
        }
        let disk = Self(dir);
        let (folder, (user, group)) = (disk.0.path().join("tables"), database.owner());
        std::fs::create_dir(&folder).unwrap();
        chown(&folder, Some(user), Some(group)).unwrap();
        database.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
        database.sql_in("template1", "ALTER DATABASE postgres SET TABLESPACE small");
        Some(disk)
    }

    fn filling(&self) -> PathBuf {
        self.0.path().join("filling")
    }
}

impl Disk for Small {
    fn fill(&self, _: &Database) {
        let mut file = std::fs::File::create(self.filling()).unwrap();
        for size in [1 << 16, 1 << 12] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self, _: &Database) {
        std::fs::remove_file(self.filling()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A simulated one: a trigger says of predictions and pictures what PostgreSQL says of a full disk.
struct Simulated;

impl Disk for Simulated {
    fn fill(&self, database: &Database) {
        let mut sql = "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
        END $$;"
            .to_owned();
        for table in ["predictions", "pictures"] {
            write!(
                sql,
                "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON syncdiffusion.{table}
                    FOR EACH ROW EXECUTE FUNCTION full_disk();"
            )
            .unwrap();
        }
        database.sql(&sql);
    }

    fn empty(&self, database: &Database) {
        database.sql(
            "DROP TRIGGER full_disk ON syncdiffusion.predictions; DROP TRIGGER full_disk ON syncdiffusion.pictures",
        );
    }
}

/// A prediction whose record takes room.
fn large(id: &str, dice: &mut Dice) -> Value {
    let words: Vec<_> = (0..90).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
    json!({"id": id, "input": {"prompt": words.join(" "), "num_inference_steps": 1, "width": 512}})
}

async fn fills(disk: &dyn Disk, database: &Database) {
    let (door, workers) = fleet(database, 1).await;
    let worker = &workers[0];
    let receiver = Receiver::start(&[]).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    let told = |mut body: Value| {
        body["webhook"] = json!(format!("{}/{}", receiver.url, body["id"].as_str().unwrap()));
        body["webhook_events_filter"] = json!(["completed"]);
        body
    };
    assert_eq!(door.predict_async(&told(super::quick("old"))).await.status, 202);
    let old = door.ended("old").await;
    receiver.wait(|sent| sent.len() == 1).await;
    // Its picture needs 800 KB of room.
    let runs = json!({"id": "runs", "input": {"prompt": format!("noise until={}", go.display()), "width": 512}});
    assert_eq!(door.predict_async(&told(runs)).await.status, 202);
    door.until("/predictions/runs", |is| is["status"] == "processing").await;
    assert_eq!(door.predict_async(&told(super::quick("waits"))).await.status, 202);

    disk.fill(database);
    std::fs::write(&go, "").unwrap();
    let log = worker.logged("could not be stored").await;
    assert!(log.contains("the disk of the database is full"), "{log}");
    let health = worker.until_health(&["UNHEALTHY"]).await;
    assert!(health["user_healthcheck_error"].as_str().unwrap().contains("disk of the database is full"), "{health}");
    // A little may go into pages that have room.
    let (mut dice, mut accepted) = (Dice(7), Vec::new());
    let refused = loop {
        let id = format!("more{}", accepted.len());
        let answer = door.predict_async(&large(&id, &mut dice)).await;
        if answer.status == 503 {
            let why = answer.json["error"].as_str().unwrap();
            assert!(why.contains("No space left on device; make room on it, or delete predictions"), "{why}");
            break id;
        }
        assert_eq!(answer.status, 202, "{}", answer.text);
        accepted.push(id);
        assert!(accepted.len() < 2000, "the disk is not full");
    };
    assert_eq!(door.get("/predictions/runs").await.json["status"], "processing", "its end is not stored");
    assert_eq!(receiver.sent().len(), 1, "and so nobody is notified");
    assert_eq!(door.get(&format!("/predictions/{refused}")).await.status, 404, "what was refused is not done");
    assert_eq!(door.get("/predictions/old").await.json, old, "what is there can be read");
    assert_eq!(door.json("DELETE", "/predictions/old", &[], &json!(null)).await.status, 204, "and removed");
    assert_eq!(worker.get("/predictions/old").await.status, 404);

    disk.empty(database);
    for id in accepted.iter().map(String::as_str).chain(["runs", "waits"]) {
        assert_eq!(door.ended(id).await["status"], "succeeded", "{id}");
    }
    let sent = receiver.wait(|sent| sent.len() == 3).await;
    assert!(sent.iter().all(|sent| sent.json["status"] == "succeeded"));
    assert_eq!(door.get("/predictions/runs/output").await.status, 200);
    worker.until_health(&["READY"]).await;
    assert_eq!(door.get(&format!("/predictions/{refused}")).await.status, 404);
    assert_eq!(door.predict(&large(&refused, &mut dice)).await.json["status"], "succeeded");
    let rows = database.sql("SELECT count(*) FROM syncdiffusion.predictions");
    assert_eq!(rows, format!("{}\n", accepted.len() + 3));
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_ends_wait_for_room() {
    let Some(database) = Database::start() else { return };
    let Some(disk) = Small::new(&database) else { return };
    fills(&disk, &database).await;
    // The database is to be gone before its disk is.
    drop(database);
}

#[tokio::test]
async fn a_simulated_full_disk_refuses_what_is_new_and_ends_wait_for_room() {
    let Some(database) = Database::start() else { return };
    fills(&Simulated, &database).await;
    let attempts = database.sql("SELECT max(attempts) FROM syncdiffusion.predictions");
    assert_eq!(attempts, "1\n", "nobody was taken for dead");
}
