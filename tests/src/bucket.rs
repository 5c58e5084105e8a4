//! A stand-in for an S3-compatible store with one bucket, `pictures`: objects in memory, put, read, listed and removed.
//! It can be away, refuse keys, and hold back the answers to those who put.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

/// The key that it accepts.
const KEY: &str = "key-1";

/// The store.
#[derive(Debug)]
pub struct Bucket {
    /// Its address.
    pub url: String,
    inside: Arc<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    objects: Mutex<BTreeMap<String, Object>>,
    is_away: AtomicBool,
    is_holding: AtomicBool,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    put_at: SystemTime,
}

impl Inside {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// Starts one.
    pub async fn start() -> Self {
        let inside = Arc::new(Inside::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inside));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, inside }
    }

    /// The variables with which it can be used.
    pub fn environment(&self) -> [(&'static str, &str); 3] {
        [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "hush-hush"), ("SYNCDIFFUSION_S3_ENDPOINT", &self.url)]
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.inside.objects().keys().cloned().collect()
    }

    /// The names of pictures: what ends like one.
    pub fn pictures(&self) -> Vec<String> {
        let is_picture = |name: &String| [".png", ".jpg", ".webp"].iter().any(|end| name.ends_with(end));
        self.names().into_iter().filter(is_picture).collect()
    }

    /// Answers everything with 503, or no longer.
    pub fn be_away(&self, is_away: bool) {
        self.inside.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Stores what is put and does not answer, or answers again.
    pub fn hold(&self, is_holding: bool) {
        self.inside.is_holding.store(is_holding, Ordering::SeqCst);
    }

    /// Has objects that contain a text in their name be older.
    pub fn age(&self, text: &str, by: Duration) {
        for (_, object) in self.inside.objects().iter_mut().filter(|(name, _)| name.contains(text)) {
            object.put_at -= by;
        }
    }
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

async fn answer(
    State(inside): State<Arc<Inside>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if inside.is_away.load(Ordering::SeqCst) {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.contains(&format!("Credential={KEY}/")) {
        return refusal(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    let Some(key) = uri.path().strip_prefix("/pictures").map(|key| key.trim_start_matches('/').to_owned()) else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchBucket");
    };
    let query = uri.query().unwrap_or_default();
    match method {
        Method::PUT => {
            inside.objects().insert(key, Object { bytes: body, put_at: SystemTime::now() });
            while inside.is_holding.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            [(header::ETAG, "\"1\"")].into_response()
        }
        Method::GET | Method::HEAD if key.is_empty() => list(&inside, query),
        Method::GET | Method::HEAD => match inside.objects().get(&key) {
            None => refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
            Some(Object { bytes, put_at }) => {
                let head = [(header::ETAG, "\"1\"".to_owned()), (header::LAST_MODIFIED, rfc2822(*put_at))];
                (head, bytes.clone()).into_response()
            }
        },
        Method::POST if query == "delete" => {
            let text = String::from_utf8_lossy(&body).into_owned();
            let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            let mut gone = String::from("<DeleteResult>");
            for (key, _) in keys {
                inside.objects().remove(key);
                _ = write!(gone, "<Deleted><Key>{key}</Key></Deleted>");
            }
            (StatusCode::OK, gone + "</DeleteResult>").into_response()
        }
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

/// A page of two objects, so that there are several.
fn list(inside: &Inside, query: &str) -> Response {
    let value = |name: &str| {
        let found = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.map(|value| value.replace("%2F", "/")).unwrap_or_default()
    };
    let (prefix, after) = (value("prefix"), value("continuation-token"));
    let objects = inside.objects();
    let mut found = objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after).peekable();
    let (mut page, mut last) = (String::from("<ListBucketResult>"), "");
    for (name, Object { bytes, put_at }) in found.by_ref().take(2) {
        let (at, size) = (iso(*put_at), bytes.len());
        _ = write!(
            page,
            "<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>{at}</LastModified><ETag>1</ETag></Contents>"
        );
        last = name;
    }
    if found.peek().is_some() {
        _ = write!(page, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    (StatusCode::OK, page + "</ListBucketResult>").into_response()
}

/// Year, month, day, hour, minute and second of a time, and the day of the week from Thursday on.
fn parts(at: SystemTime) -> ([u64; 6], usize) {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`, for days since 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    ([year, month, day, rest / 3600, rest / 60 % 60, rest % 60], (days % 7) as usize)
}

fn iso(at: SystemTime) -> String {
    let ([year, month, day, hour, minute, second], _) = parts(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

fn rfc2822(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let ([year, month, day, hour, minute, second], weekday) = parts(at);
    let (weekday, month) = (DAYS[weekday], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}
