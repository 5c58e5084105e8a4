//! Frames: one line of JSON, then as many raw bytes as it announces.
//!
//! ```text
//! {"type":"progress","job":"a","step":3,"of":50,"seconds":1.2,"fraction":0.06}\n
//! {"type":"done","job":"a",...,"bytes":3145728}\n<3145728 bytes>
//! ```
//!
//! `bytes` belongs to the frame, not to the message, and is omitted if there are none. After garbage a reader can start
//! again at the next line, and a person can write frames in a shell.

use std::io::{self, BufRead, Read as _, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Maximum length of a line in bytes: a prompt of a megabyte fits, even if all of it is escaped.
pub const MAX_LINE: usize = 16 << 20;

/// Maximum number of bytes after a line.
pub const MAX_BYTES: u64 = 1 << 30;

/// What [`read`] found.
#[derive(Debug, PartialEq)]
pub enum Received<T> {
    /// A message and the bytes that came with it.
    Frame(T, Vec<u8>),
    /// A line that is not a frame, and why. The next read starts at the next line.
    Malformed(String),
    /// The stream has ended.
    End,
}

/// Writes one frame and flushes it.
///
/// # Errors
/// Those of the writer; a message that is not a JSON object is [`io::ErrorKind::InvalidInput`].
pub fn write<T: Serialize>(mut to: impl Write, message: &T, bytes: &[u8]) -> io::Result<()> {
    let Value::Object(mut line) = serde_json::to_value(message)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message must serialise to a JSON object"));
    };
    if !bytes.is_empty() {
        line.insert("bytes".to_owned(), bytes.len().into());
    }
    let mut head = serde_json::to_vec(&line)?;
    head.push(b'\n');
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

/// Reads the next frame; blocks until it is complete.
///
/// # Errors
/// Those of the reader. A line that is not a frame is [`Received::Malformed`], not an error.
pub fn read<T: DeserializeOwned>(from: impl BufRead) -> io::Result<Received<T>> {
    read_up_to(from, MAX_LINE, || MAX_BYTES)
}

/// Reads the next frame, of a line of up to `max_line` bytes. If more than `max_bytes` are announced after the line,
/// which is asked when they are, they are skipped, and the frame has none.
///
/// # Errors
/// As [`read`].
pub fn read_up_to<T: DeserializeOwned>(
    mut from: impl BufRead,
    max_line: usize,
    max_bytes: impl FnOnce() -> u64,
) -> io::Result<Received<T>> {
    let mut line = Vec::new();
    if (&mut from).take(max_line as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(Received::End);
    }
    if line.pop() != Some(b'\n') {
        let whole_stream = line.len() + 1 < max_line;
        skip_line(from)?;
        return Ok(Received::Malformed(if whole_stream {
            "the stream ended in the middle of a line".to_owned()
        } else {
            format!("a line is longer than {max_line} bytes")
        }));
    }
    match parse(&line) {
        Err(why) => Ok(Received::Malformed(why)),
        Ok((message, announced)) => {
            let mut bytes = Vec::new();
            let read = if announced <= max_bytes() {
                from.take(announced).read_to_end(&mut bytes)? as u64
            } else {
                io::copy(&mut from.take(announced), &mut io::sink())?
            };
            if read < announced {
                return Ok(Received::Malformed(format!(
                    "the stream ended after {read} of {announced} announced bytes"
                )));
            }
            Ok(Received::Frame(message, bytes))
        }
    }
}

/// The message in a line and the number of bytes it announces.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<(T, u64), String> {
    let mut value: Value = serde_json::from_slice(line).map_err(|e| format!("a line is not JSON: {e}"))?;
    let announced = match value.as_object_mut().and_then(|object| object.remove("bytes")) {
        None => 0,
        Some(n) => n
            .as_u64()
            .filter(|&n| n <= MAX_BYTES)
            .ok_or_else(|| format!("`bytes` is `{n}`, not a number up to {MAX_BYTES}"))?,
    };
    serde_json::from_value(value).map(|message| (message, announced)).map_err(|e| format!("not a message: {e}"))
}

/// Skips the rest of the current line.
fn skip_line(mut from: impl BufRead) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        from.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Event};

    fn cancel(job: &str) -> Command {
        Command::Cancel { job: job.to_owned() }
    }

    #[test]
    fn what_is_written_is_read() {
        let event = Event::Log { job: "ü \n".to_owned(), line: "50%|█████".to_owned() };
        let mut stream = Vec::new();
        write(&mut stream, &event, b"raw\nbytes").unwrap();
        write(&mut stream, &event, b"").unwrap();
        let mut from = stream.as_slice();
        assert_eq!(read(&mut from).unwrap(), Received::Frame(event.clone(), b"raw\nbytes".to_vec()));
        assert_eq!(read(&mut from).unwrap(), Received::Frame(event, Vec::new()));
        assert_eq!(read::<Event>(&mut from).unwrap(), Received::End);
    }

    #[test]
    fn a_malformed_line_does_not_spoil_the_next() {
        let bad: [&[u8]; 6] = [
            b"hello\n",
            b"\n",
            b"[1]\n",
            b"{\"type\":\"nope\"}\n",
            b"{\"type\":\"cancel\",\"job\":\"a\",\"bytes\":-1}\n",
            b"\xff\xfe\x00\n",
        ];
        for bad in bad {
            let mut stream = bad.to_vec();
            write(&mut stream, &cancel("a"), b"").unwrap();
            let mut from = stream.as_slice();
            assert!(matches!(read::<Command>(&mut from).unwrap(), Received::Malformed(_)), "{bad:?}");
            assert_eq!(read(&mut from).unwrap(), Received::Frame(cancel("a"), Vec::new()), "{bad:?}");
        }
    }

    #[test]
    fn an_endless_line_is_dropped_whole() {
        let mut stream = vec![b'x'; MAX_LINE + 10];
        stream.push(b'\n');
        write(&mut stream, &cancel("a"), b"").unwrap();
        let mut from = stream.as_slice();
        assert!(matches!(read::<Command>(&mut from).unwrap(), Received::Malformed(_)));
        assert_eq!(read(&mut from).unwrap(), Received::Frame(cancel("a"), Vec::new()));
    }

    #[test]
    fn more_bytes_than_allowed_are_skipped() {
        let mut stream = Vec::new();
        write(&mut stream, &cancel("a"), &[b'\n'; 100]).unwrap();
        write(&mut stream, &cancel("b"), &[b'x'; 99]).unwrap();
        let mut from = stream.as_slice();
        let mut next = || read_up_to(&mut from, 1000, || 99).unwrap();
        assert_eq!(next(), Received::Frame(cancel("a"), Vec::new()));
        assert_eq!(next(), Received::Frame(cancel("b"), vec![b'x'; 99]));
        let mut from = stream.as_slice();
        assert!(matches!(read_up_to::<Command>(&mut from, 10, || 99).unwrap(), Received::Malformed(_)), "a long line");
    }

    #[test]
    fn a_truncated_stream_is_reported() {
        for cut in ["{\"type\":\"canc", "{\"type\":\"cancel\",\"job\":\"a\",\"bytes\":5}\nabc"] {
            let mut from = cut.as_bytes();
            let Received::Malformed(why) = read::<Command>(&mut from).unwrap() else { panic!("{cut}") };
            assert!(why.contains("ended"), "{why}");
            assert_eq!(read::<Command>(&mut from).unwrap(), Received::End);
        }
    }
}
