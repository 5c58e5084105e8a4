//! Commands: frames from stdin, read on a thread of their own.

use std::io::BufReader;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use protocol::Command;
use protocol::frame::{self, Received};

/// What came from stdin.
pub(crate) enum Message {
    /// A command, with the bytes of its frame.
    Command(Command, Vec<u8>),
    /// A line that is not a command, and why.
    Malformed(String),
}

/// Starts to read. The channel closes when stdin ends.
pub(crate) fn read_stdin() -> Receiver<Message> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
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
    });
    receiver
}
