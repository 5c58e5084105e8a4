//! Servers, and now and then the database, that are killed and frozen at random: nothing accepted is lost, nothing ends
//! twice, nothing is stuck, what was canceled is canceled, and every webhook is delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tests::{Database, Dice, Receiver, Sent, Server};

use super::{door, worker};

/// `make soak-fleet` does it a thousand times.
const ROUNDS: u64 = 8;

/// One of the servers, which is started again when it is killed.
struct Member {
    server: Server,
    start: fn(&str) -> Server,
}

impl Member {
    fn new(start: fn(&str) -> Server, url: &str) -> Self {
        Self { server: start(url), start }
    }

    fn kill(&mut self, url: &str) {
        self.server.kill();
        self.server = (self.start)(url);
    }
}

#[tokio::test]
async fn a_few_kills() {
    let Some(mut database) = Database::start() else { return };
    let (url, mut dice) = (database.url(), Dice(7));
    let receiver = Receiver::start(&[]).await;
    let starts: [fn(&str) -> Server; 4] = [door, door, worker, worker];
    let mut fleet: Vec<Member> = starts.iter().map(|start| Member::new(*start, &url)).collect();
    for member in &fleet {
        member.server.until_health(&["READY"]).await;
    }
    let (mut accepted, mut canceled) = (Vec::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        for n in 0..=dice.roll(3) {
            let id = format!("k{round}-{n}");
            let steps = 1 + dice.roll(20);
            let body = json!({
                "id": id,
                "input": {"prompt": "step=5", "num_inference_steps": steps, "width": 512},
                "webhook": format!("{}/{id}", receiver.url),
                "webhook_events_filter": ["completed"],
            });
            let answer = fleet[dice.roll(4) as usize].server.predict_async(&body).await;
            match answer.status {
                202 => accepted.push(id),
                // No worker is known to be ready, or the database is away.
                503 => {}
                _ => panic!("{}", answer.text),
            }
        }
        if dice.roll(3) == 0
            && let Some(id) = accepted.last().cloned()
        {
            let path = format!("/predictions/{id}/cancel");
            let server = &fleet[dice.roll(4) as usize].server;
            if server.json("POST", &path, &[], &json!(null)).await.status == 200 {
                canceled.insert(id);
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.roll(150_000))).await;
        let victim = &mut fleet[dice.roll(4) as usize];
        match dice.roll(8) {
            0 => {
                database.kill();
                database.restart();
            }
            1 | 2 => {
                victim.server.signal("STOP");
                tokio::time::sleep(Duration::from_millis(dice.roll(5000))).await;
                victim.server.signal("CONT");
            }
            _ => victim.kill(&url),
        }
    }
    for id in &accepted {
        let is = fleet[dice.roll(4) as usize].server.ended(id).await;
        let status = is["status"].as_str().unwrap();
        if canceled.contains(id) {
            assert_eq!(status, "canceled", "{id} was accepted to be canceled: {is}");
        } else if status == "failed" {
            let error = is["error"].as_str().unwrap();
            assert!(error.contains("interrupted 2 times") || error.contains("was lost 2 times"), "{id}: {error}");
        } else {
            assert_eq!(status, "succeeded", "{is}");
        }
        let told = |sent: &Sent| sent.path[1..] == **id && sent.json["status"] == status;
        receiver.wait(|sent| sent.iter().any(told)).await;
    }
    let stuck = "SELECT count(*) FROM syncdiffusion.predictions WHERE status IN ('starting', 'processing')";
    assert_eq!(database.sql(stuck), "0\n");
}
