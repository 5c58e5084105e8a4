//! Commands: frames from stdin, read on a thread of their own.
//!
//! The end of stdin is the end of the server, and then of this process, even if it hangs in a driver.

use std::io::BufReader;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use protocol::Command;
use protocol::frame::{self, Received};
use rustix::process::{Signal, getpid, kill_process};

/// How long a batch may go on when nobody is left for its results.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came from stdin.
pub(crate) enum Message {
    /// A command, with the bytes of its frame.
    Command(Command, Vec<u8>),
    /// A line that is not a command, and why.
    Malformed(String),
}

/// Starts to read. The channel closes when stdin ends, and the process is killed if it has not ended soon after.
pub(crate) fn read_stdin() -> Receiver<Message> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        read(&sender);
        drop(sender);
        thread::sleep(PATIENCE);
        // An orderly exit could wait for what hangs.
        let _ = kill_process(getpid(), Signal::KILL);
    });
    receiver
}

/// Reads until stdin ends.
fn read(sender: &Sender<Message>) {
    let mut stdin = BufReader::new(std::io::stdin());
    loop {
        let message = match frame::read::<Command>(&mut stdin) {
            Ok(Received::Frame(command, bytes)) => Message::Command(command, bytes),
            Ok(Received::Malformed(why)) => Message::Malformed(why),
            Ok(Received::End) => return,
            Err(error) => {
                tracing::error!("cannot read stdin: {error}");
                return;
            }
        };
        if sender.send(message).is_err() {
            return;
        }
    }
}
