//! Pictures that requests name by URLs of other servers, fetched through the guard.

use std::sync::Arc;
use std::time::Duration;

use http_client::{USER_AGENT, reason};
use reqwest::header::{ACCEPT, USER_AGENT as AGENT};
use reqwest::{Client, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Full, PATIENCE};
use crate::input::MAX_PICTURE;
use crate::input::data_uri::too_large;
use crate::outgoing::Gate;

/// How long a picture may take from the first packet to the last byte, redirects included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pictures that are fetched at once.
const MAX_FETCHES: usize = 16;
/// The bytes of pictures that are fetched at once, in KiB: each takes room for what it has grown to.
const MAX_SUM: usize = 256 << 10;
/// Bytes that a permit is for.
const UNIT: usize = 1024;

/// Fetches pictures.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    client: Client,
    gate: Gate,
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// Why a picture was not fetched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfetched {
    /// It cannot be had from there, in words for whoever asked for it. They do not repeat the URL, which may contain
    /// secrets.
    Refused(String),
    /// There is no room beside what other requests fetch.
    Full,
}

impl Fetcher {
    pub(crate) fn new(gate: &Gate) -> Result<Self, reqwest::Error> {
        Self::within(gate, TIMEOUT)
    }

    fn within(gate: &Gate, limit: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: gate.following_client(limit)?,
            gate: gate.clone(),
            places: Arc::new(Semaphore::new(MAX_FETCHES)),
            room: Arc::new(Semaphore::new(MAX_SUM)),
        })
    }

    /// The bytes behind a URL, whatever they are, and the room that they take.
    pub(crate) async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Unfetched> {
        let refused = Unfetched::Refused;
        let url = self.gate.check(url).map_err(|why| refused(why.to_string()))?;
        let Ok(Ok(_place)) = timeout(PATIENCE, self.places.acquire()).await else { return Err(Unfetched::Full) };
        let wanted = "image/png, image/jpeg, image/webp";
        let request = self.client.get(url).header(ACCEPT, wanted).header(AGENT, USER_AGENT);
        let response = request.send().await.map_err(|error| refused(failed(error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(format!("the server answered {status} instead of sending the picture")));
        }
        self.read(response).await
    }

    /// Reads the body as it comes.
    async fn read(&self, mut response: Response) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Unfetched> {
        let refused = Unfetched::Refused;
        if response.content_length().is_some_and(|length| length > MAX_PICTURE as u64) {
            return Err(refused(too_large()));
        }
        let (mut bytes, mut room) = (Vec::new(), None);
        while let Some(chunk) = response.chunk().await.map_err(|error| refused(failed(error)))? {
            if bytes.len() + chunk.len() > MAX_PICTURE {
                return Err(refused(too_large()));
            }
            self.reserve(&mut room, bytes.len() + chunk.len()).await.map_err(|Full| Unfetched::Full)?;
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes, room))
    }

    /// Reserves room for what a picture has grown to.
    async fn reserve(&self, held: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), Full> {
        let missing = length.div_ceil(UNIT).saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.room).acquire_many_owned(missing as u32);
        let Ok(Ok(more)) = timeout(PATIENCE, more).await else { return Err(Full) };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// Why a request failed, in words.
fn failed(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "the server did not send the picture in time; send it as a data URI, or from a faster server"
            .to_owned();
    }
    format!("the picture cannot be fetched: {}", reason(error))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each request with the next of these texts, and then says nothing more.
    async fn server(answers: &[String]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.to_vec();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                open.push(stream);
            }
            std::future::pending::<()>().await;
        });
        url
    }

    fn answer(status: &str, more: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{more}connection: close\r\n\r\n{body}")
    }

    fn fetcher(limit: Duration) -> Fetcher {
        crate::install_crypto();
        Fetcher::within(&Gate::new(true), limit).unwrap()
    }

    async fn refused(fetcher: &Fetcher, url: &str) -> String {
        match fetcher.fetch(url).await {
            Err(Unfetched::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_there_is_fetched_and_what_is_not_is_said() {
        let fetcher = fetcher(TIMEOUT);
        let found = answer("200 OK", "content-length: 2\r\ncontent-type: text/html\r\n", "hi");
        let moved = answer("302 Found", "location: /there\r\ncontent-length: 0\r\n", "");
        let url = server(&[found.clone(), moved, found]).await;
        assert_eq!(fetcher.fetch(&url).await.unwrap().0, b"hi");
        let fetched = fetcher.fetch(&url).await.unwrap();
        assert_eq!((fetched.0.as_slice(), fetcher.room.available_permits()), (&b"hi"[..], MAX_SUM - 1));
        drop(fetched);
        assert_eq!((fetcher.room.available_permits(), fetcher.places.available_permits()), (MAX_SUM, MAX_FETCHES));

        let missing = answer("404 Not Found", "content-length: 0\r\n", "");
        let large = answer("200 OK", &format!("content-length: {}\r\n", MAX_PICTURE + 1), "");
        let short = answer("200 OK", "content-length: 200\r\n", "hi");
        let endless = answer("200 OK", "", &"x".repeat(MAX_PICTURE + 1));
        for (answer, words) in [(missing, "404"), (large, "32 MiB"), (endless, "32 MiB")] {
            let why = refused(&fetcher, &server(&[answer]).await).await;
            assert!(why.contains(words), "{why}");
        }
        // The connection stays open, and the rest does not come.
        let hasty = self::fetcher(Duration::from_millis(200));
        for never in [short, String::new()] {
            let why = refused(&hasty, &server(&[never]).await).await;
            assert!(why.contains("in time"), "{why}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_not_asked() {
        crate::install_crypto();
        let fetcher = Fetcher::new(&Gate::new(false)).unwrap();
        for url in ["http://127.0.0.1:1/x?secret=1", "http://localhost/secret", "http://169.254.169.254/secret"] {
            let why = refused(&fetcher, url).await;
            assert!(why.contains("--allow-private-urls") && !why.contains("secret"), "{why}");
        }
        assert!(refused(&fetcher, "http://user:secret@example.com/").await.contains("password"));
        assert!(!refused(&fetcher, "http://user:secret@example.com/").await.contains("secret"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_fetched_at_once_is_bounded_in_sum() {
        let fetcher = fetcher(TIMEOUT);
        let mut held = Vec::new();
        for _ in 0..MAX_SUM * UNIT / MAX_PICTURE {
            let mut room = None;
            fetcher.reserve(&mut room, 10).await.unwrap();
            fetcher.reserve(&mut room, MAX_PICTURE).await.unwrap();
            held.push(room);
        }
        assert_eq!(fetcher.reserve(&mut None, 1).await, Err(Full));
        held.pop();
        assert_eq!(fetcher.reserve(&mut None, 1).await, Ok(()));
        let _places = fetcher.places.acquire_many(MAX_FETCHES as u32).await.unwrap();
        assert!(matches!(fetcher.fetch("http://127.0.0.1:1/").await, Err(Unfetched::Full)));
    }
}
