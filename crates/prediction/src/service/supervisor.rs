//! Keeps one worker alive: starts its process, passes on what it sends, ends it when it is silent for too long, and
//! starts another when it is lost. What follows from each of these is decided in `events` and `workers`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};

use super::bounds::bounded;
use super::shared::Shared;
use crate::shown::shown;
use crate::worker::{Message, Program, Worker};

/// How often the timeouts of a silent worker are looked at. A job may be given to it at any time, and its timeout
/// begins then.
const CHECK: Duration = Duration::from_secs(1);
/// How many messages of a worker are held; then its pipes fill, and it waits.
const MAX_MESSAGES: usize = 16;

/// Serves the slot of one worker until the server stops or the worker is given up.
pub(super) async fn run(shared: Arc<Shared>, worker: usize, program: Program) {
    for process in 0.. {
        if process > 0 {
            metrics::counter!("syncdiffusion_worker_restarts_total", "worker" => worker.to_string()).increment(1);
        }
        let how = match start(&program) {
            Err(error) => error.to_string(),
            Ok((process, mut messages)) => {
                process.step_back();
                shared.on_start(worker, process);
                listen(&shared, worker, &mut messages).await
            }
        };
        match shared.on_exit(worker, how) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

/// Starts a process, which waits while its messages do.
fn start(program: &Program) -> io::Result<(Worker, Receiver<Message>)> {
    let (to, messages) = channel(MAX_MESSAGES);
    Ok((program.spawn(move |message| _ = to.blocking_send(message))?, messages))
}

/// Passes on what a process sends until it has ended or is to be, and returns why.
async fn listen(shared: &Arc<Shared>, worker: usize, messages: &mut Receiver<Message>) -> String {
    loop {
        let message = match shared.patience(worker).unwrap_or(CHECK) {
            Duration::ZERO => return shared.on_silence(worker),
            patience => match tokio::time::timeout(patience.min(CHECK), messages.recv()).await {
                Err(_) => continue,
                Ok(message) => message,
            },
        };
        match message {
            None => return String::new(),
            Some(Message::Exited(how)) => return how,
            Some(Message::Line(line)) => shared.on_line(worker, &line),
            Some(Message::Malformed(why)) => {
                tracing::warn!(worker, why = %shown(&why), "worker sent something that is not an event");
            }
            Some(Message::Event(event, bytes)) => match bounded(event) {
                Ok(event) => {
                    if let Some(encoding) = shared.on_event(worker, event, bytes) {
                        _ = encoding.await;
                    }
                }
                Err(why) => return why,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines of 1000 bytes a worker writes.
    const LINES: usize = 4000;
    /// More of them than fit into the messages that are held, a pipe and the buffer behind it.
    const HELD: usize = 400;

    #[tokio::test]
    async fn a_worker_waits_while_its_messages_do() {
        let dir = tempfile::tempdir().unwrap();
        let written = dir.path().join("written");
        let script = format!(
            "line=$(head -c 999 /dev/zero | tr '\\0' x); i=0; while [ $i -lt {LINES} ]; do echo $line; i=$((i + 1)); done; \
             touch {}; exec sleep 1000",
            written.display()
        );
        let arguments = vec!["-c".into(), script.into()];
        let program = Program { path: "/bin/sh".into(), arguments, environment: Vec::new() };
        let (worker, mut messages) = start(&program).unwrap();
        while messages.len() < MAX_MESSAGES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for read in 1..=LINES {
            let message = messages.recv().await.unwrap();
            assert!(matches!(message, Message::Malformed(_)), "{message:?}");
            assert!(
                read + HELD > LINES || !written.exists(),
                "it has not waited: all is written, {read} lines are read"
            );
        }
        while !written.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(worker);
    }
}
