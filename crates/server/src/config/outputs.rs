//! Flags for outputs and webhooks, and for the URLs that are called for them.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use prediction::bucket::{Access, split};
use prediction::outgoing::Gate;
use prediction::redacted::Redacted;
use prediction::upload::{Place, bucket};
use prediction::webhook;
use prediction::webhook::signature::Secret;

use super::environment;
use super::words::{switch, web_url};
use crate::units::duration;

#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// What the output of a prediction is: `data-uri`, the picture itself; `files`, a URL of this server that nobody
    /// can guess; or `s3://bucket/prefix`, the URL of an object in a bucket (keys and region come from the variables
    /// `AWS_*`)
    #[arg(long, env = "SYNCDIFFUSION_OUTPUT", default_value = "data-uri", value_parser = destination)]
    #[arg(help_heading = "Output")]
    output: Destination,
    /// Address of an S3-compatible store other than Amazon's, such as `http://localhost:9000`
    #[arg(long, env = "SYNCDIFFUSION_S3_ENDPOINT", value_parser = web_url, help_heading = "Output")]
    s3_endpoint: Option<String>,
    /// Which URL of an object in a bucket becomes the output
    #[arg(long, env = "SYNCDIFFUSION_S3_URL", default_value = "presigned", help_heading = "Output")]
    s3_url: S3Url,
    /// How long presigned URLs are valid, up to `7d`
    #[arg(long, env = "SYNCDIFFUSION_S3_PRESIGN_FOR", default_value = "7d", value_parser = presign)]
    #[arg(help_heading = "Output")]
    s3_presign_for: Duration,
    /// Public URL of the bucket, if it is not the store's own; the name of the object is appended
    #[arg(long, env = "SYNCDIFFUSION_S3_PUBLIC_URL", value_parser = web_url, help_heading = "Output")]
    s3_public_url: Option<String>,
    /// URL that pictures are PUT to, with `output.png` appended; the output of a prediction is then the picture's URL
    #[arg(
        long,
        env = "SYNCDIFFUSION_UPLOAD_URL",
        hide_env_values = true,
        conflicts_with = "output",
        help_heading = "Output"
    )]
    upload_url: Option<Redacted>,
    /// Write only pixels into pictures: not the input, not the model, and not that a model made them
    #[arg(long, env = "SYNCDIFFUSION_NO_METADATA", value_parser = switch, help_heading = "Output")]
    no_metadata: bool,
    /// Call URLs of clients (webhooks, `output_file_prefix`, pictures as inputs) even if they lead to this machine or
    /// its networks; by default only if `--host` is a loopback address and there is no `--public-url`
    #[arg(long, env = "SYNCDIFFUSION_ALLOW_PRIVATE_URLS", num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true, value_parser = switch, help_heading = "Webhooks")]
    allow_private_urls: Option<bool>,
    /// Shortest time between two `logs` webhooks of a prediction, in seconds
    #[arg(long, env = "COG_THROTTLE_RESPONSE_INTERVAL", default_value = "0.5", value_parser = duration)]
    #[arg(help_heading = "Webhooks")]
    webhook_interval: Duration,
    /// Token that is sent to webhook receivers as `Authorization: Bearer`
    #[arg(long, env = "WEBHOOK_AUTH_TOKEN", hide_env_values = true, help_heading = "Webhooks")]
    webhook_auth_token: Option<Redacted>,
    /// Secret that webhooks are signed with: `whsec_` and base64; by default one is made and kept in the data
    /// folder or the database
    #[arg(long, env = "SYNCDIFFUSION_WEBHOOK_SECRET", hide_env_values = true, help_heading = "Webhooks")]
    webhook_secret: Option<Redacted>,
    /// Serve that secret to everybody who may call the API, at `GET /v1/webhooks/default/secret`, as Replicate does
    #[arg(long, env = "SYNCDIFFUSION_SHOW_WEBHOOK_SECRET", value_parser = switch, help_heading = "Webhooks")]
    pub(crate) show_webhook_secret: bool,
}

/// What `--output` says.
#[derive(Clone, Debug, PartialEq)]
enum Destination {
    DataUri,
    Files,
    Bucket(String),
}

/// What `--s3-url` says.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum S3Url {
    /// Signed, valid for `--s3-presign-for`
    Presigned,
    /// Unsigned; everybody must be allowed to read the bucket
    Public,
}

impl Outputs {
    /// What the output of a prediction is.
    pub(super) fn place(&self) -> Place {
        if let Some(url) = &self.upload_url {
            return Place::Receiver(url.clone());
        }
        let url = match &self.output {
            Destination::DataUri => return Place::DataUri,
            Destination::Files => return Place::Files,
            Destination::Bucket(url) => url.clone(),
        };
        let links = match self.s3_url {
            S3Url::Presigned => bucket::Links::Presigned(self.s3_presign_for),
            S3Url::Public => bucket::Links::Public(self.s3_public_url.clone()),
        };
        Place::Bucket(bucket::Options { at: prediction::bucket::Options { url, access: self.access() }, links })
    }

    /// How a bucket is reached.
    pub(crate) fn access(&self) -> Access {
        // Too many to be flags, and other tools set them: keys, profiles of machines, roles of Kubernetes.
        let environment = environment::with_prefix("AWS_").map(|(name, value)| (name, value.into())).collect();
        Access { endpoint: self.s3_endpoint.clone(), environment }
    }

    /// Whether pictures contain how they were made.
    pub(super) fn metadata(&self) -> bool {
        !self.no_metadata
    }

    /// Which URLs of clients are called, given the address that the server listens on, and the URL that others reach
    /// it at: whoever names one has a proxy on this machine, behind which everybody looks like this machine.
    pub(super) fn gate(&self, host: IpAddr, public_url: Option<&str>) -> Gate {
        Gate::new(self.allow_private_urls.unwrap_or(host.is_loopback() && public_url.is_none()))
    }

    /// How webhooks are sent. Without a secret among the flags, the shared one of a database is used, or the data
    /// folder's, or one for this process alone.
    pub(super) fn webhooks(&self, data_dir: Option<&Path>, shared: Option<&str>) -> anyhow::Result<webhook::Options> {
        let secret = match (&self.webhook_secret, shared, data_dir) {
            (Some(text), ..) => Secret::parse(text.reveal()).context("`--webhook-secret`")?,
            (None, Some(text), _) => Secret::parse(text).context("the webhook secret of the database")?,
            (None, None, Some(dir)) => Secret::kept_in(dir).with_context(|| {
                format!("cannot keep a webhook secret in `{}`; set one with `--webhook-secret`", dir.display())
            })?,
            (None, None, None) => Secret::random()?,
        };
        Ok(webhook::Options {
            interval: self.webhook_interval,
            token: self.webhook_auth_token.clone(),
            secret,
            translate: None,
        })
    }
}

/// A value of `--output`.
fn destination(text: &str) -> Result<Destination, String> {
    match text {
        "data-uri" => Ok(Destination::DataUri),
        "files" => Ok(Destination::Files),
        _ if text.starts_with("s3:") => split(text).map(|_| Destination::Bucket(text.to_owned())),
        _ => Err("write `data-uri`, `files` or `s3://bucket/prefix`".to_owned()),
    }
}

/// How long a presigned URL may be valid.
fn presign(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let allowed = Duration::from_secs(1)..=bucket::MAX_LINK;
    if allowed.contains(&time) { Ok(time) } else { Err(format!("`{text}` is not between 1s and 7d")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::Serve;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        serve: Serve,
    }

    fn serve(flags: &[&str]) -> Result<Serve, clap::Error> {
        Flags::try_parse_from([&["serve"], flags].concat()).map(|flags| flags.serve)
    }

    #[test]
    fn outputs_are_read() {
        let place = |flags: &[&str]| serve(flags).unwrap().outputs.place();
        assert!(matches!(place(&[]), Place::DataUri) && matches!(place(&["--output", "files"]), Place::Files));
        assert!(matches!(place(&["--upload-url", "http://x"]), Place::Receiver(_)));
        let Place::Bucket(options) = place(&["--output", "s3://b/p", "--s3-presign-for", "1h"]) else {
            panic!("a bucket")
        };
        assert_eq!(
            (options.at.url.as_str(), options.links),
            ("s3://b/p", bucket::Links::Presigned(Duration::from_hours(1)))
        );
        for wrong in [
            &["--output", "disk"][..],
            &["--output", "s3://"],
            &["--output", "s3:b"],
            &["--s3-presign-for", "8d"],
            &["--s3-presign-for", "0"],
            &["--output", "files", "--upload-url", "http://x"],
        ] {
            assert!(serve(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn private_urls_are_called_if_only_this_machine_calls_us() {
        let lets = |flags: &[&str]| {
            let serve = serve(flags).unwrap();
            serve.outputs.gate(serve.host, serve.public_url.as_deref()).check("http://127.0.0.1").is_ok()
        };
        assert!(!lets(&[]) && lets(&["--host", "127.0.0.1"]) && lets(&["--host", "::1"]));
        assert!(lets(&["--allow-private-urls"]) && !lets(&["--host", "127.0.0.1", "--allow-private-urls=false"]));
        // A proxy on this machine passes on what others send.
        let proxied = ["--host", "127.0.0.1", "--public-url", "https://panorama.example.com"];
        assert!(!lets(&proxied) && lets(&[&proxied[..], &["--allow-private-urls"]].concat()));
    }

    #[test]
    fn secrets_are_not_repeated() {
        let flags =
            ["--webhook-secret", "hush-1", "--webhook-auth-token", "hush-2", "--upload-url", "http://u:hush-3@x"];
        let serve = serve(&flags).unwrap();
        assert!(!format!("{serve:?}").contains("hush"));
        let error = serve.outputs.webhooks(None, None).err().unwrap();
        assert!(!format!("{error:#}").contains("hush"), "{error:#}");
    }
}
