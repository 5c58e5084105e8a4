//! `weights fetch` and `weights verify` as people call them, with the hub of the crate `tests`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tests::hub::{Fault, TestHub, UNET};
use tokio::process::Command;

struct Case {
    hub: TestHub,
    dir: TempDir,
}

impl Case {
    async fn new() -> Self {
        Self { hub: TestHub::start().await, dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiffusion"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("SYNCDIFFUSION_HOME")
            .env_remove("RUST_LOG")
            .env("XDG_DATA_HOME", self.dir.path().join("share"))
            .env("HF_ENDPOINT", &self.hub.url)
            .env("HF_TOKEN", "")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Exit code, stdout and stderr.
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command(arguments).output().await.unwrap())
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("share/syncdiffusion/models/sd2")
    }
}

fn outcome(Output { status, stdout, stderr }: Output) -> (i32, String, String) {
    (status.code().unwrap_or(-1), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn a_model_is_fetched_found_by_its_name_and_checked() {
    let case = Case::new().await;
    let (code, _, stderr) = case.run(&["serve", "--model", "sd2", "--port", "0"]).await;
    assert_eq!(code, 1);
    assert!(
        stderr.contains("there is no model `sd2`") && stderr.contains("`syncdiffusion weights fetch sd2`"),
        "{stderr}"
    );

    let (code, stdout, stderr) = case.run(&["weights", "fetch", "sd2"]).await;
    assert_eq!(code, 0, "{stderr}");
    let bundle = case.bundle();
    for part in [
        &format!("fetched in `{}`: 14 files", bundle.display()),
        "CreativeML Open RAIL++-M",
        "use restrictions",
        "Serve it: syncdiffusion serve --model sd2\n",
    ] {
        assert!(stdout.contains(part), "{part}\n{stdout}");
    }
    assert!(stderr.contains(&format!("{UNET}: done")), "{stderr}");

    // What a worker is started with.
    let worker = case.dir.path().join("worker");
    fs::write(&worker, "#!/bin/sh\necho \"$@\" > arguments\n").unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let worker = worker.to_str().unwrap();
    case.run(&["generate", "--prompt", "a", "--model", "sd2", "--worker", worker]).await;
    let arguments = fs::read_to_string(case.dir.path().join("arguments")).unwrap();
    assert!(arguments.contains(&format!("--model {} ", bundle.display())), "{arguments}");

    for name in ["sd2", bundle.to_str().unwrap()] {
        let (code, stdout, _) = case.run(&["weights", "verify", name]).await;
        assert_eq!(code, 0);
        assert!(stdout.contains("is right: 14 files"), "{stdout}");
    }
    fs::write(bundle.join("vae/config.json"), "{}").unwrap();
    fs::write(bundle.join("note.txt"), "").unwrap();
    let (code, stdout, stderr) = case.run(&["weights", "verify", "sd2"]).await;
    assert_eq!((code, stdout.lines().count()), (1, 2), "{stdout}");
    assert!(stderr.contains("differs from its lock"), "{stderr}");

    let (code, stdout, _) = case.run(&["weights", "fetch", "sd2"]).await;
    assert!(code == 0 && stdout.starts_with("fetched in"), "{stdout}");
    let (code, stdout, _) = case.run(&["weights", "fetch", "sd2"]).await;
    assert!(code == 0 && stdout.starts_with("nothing to fetch"), "{stdout}");
}

#[tokio::test]
async fn an_interrupt_leaves_nothing_that_looks_complete() {
    let case = Case::new().await;
    case.hub.fail(UNET, &[Fault::Stall(1_000_000)]);
    let fetch = case.command(&["weights", "fetch", "sd2", "--to", "here"]).spawn().unwrap();
    let part = case.dir.path().join(format!("here/{UNET}.part"));
    while fs::metadata(&part).map_or(0, |found| found.len()) < 1_000_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = fetch.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    let (code, stdout, stderr) = outcome(fetch.wait_with_output().await.unwrap());
    assert_eq!((code, stdout.as_str()), (130, ""));
    assert!(stderr.contains("what was received is kept"), "{stderr}");
    let (code, _, stderr) = case.run(&["generate", "--prompt", "a", "--model", "./here"]).await;
    assert!(code == 1 && stderr.contains("was interrupted"), "{stderr}");

    case.hub.calm();
    let (code, stdout, stderr) = case.run(&["weights", "fetch", "sd2", "--to", "here"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("of them kept"), "{stderr}");
    assert!(stdout.ends_with("Serve it: syncdiffusion serve --model ./here\n"), "{stdout}");
    assert_eq!(case.hub.offsets(UNET), [1_000_000]);
    assert_eq!(case.run(&["weights", "verify", "here"]).await.0, 0);
}

#[tokio::test]
async fn an_error_is_one_line_with_a_remedy() {
    let case = Case::new().await;
    let error = async |arguments: &[&str]| {
        let (code, stdout, stderr) = case.run(&[&["weights"], arguments].concat()).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        stderr
    };
    assert!(error(&["fetch", "mine"]).await.contains("`--from OWNER/NAME`"));
    assert!(error(&["fetch", "demo", "--from", "a/b"]).await.contains("cannot be the name of a model"));
    assert!(error(&["fetch", "sd2", "--from", "stable diffusion"]).await.contains("it has to be `owner/name`"));
    assert!(
        error(&["fetch", "mine", "--from", "nobody/nothing"]).await.contains("nobody/nothing` has no revision `main`")
    );
    assert!(error(&["verify", "."]).await.contains("has no `weights.lock`"));
    assert!(fs::read_dir(case.dir.path()).unwrap().next().is_none(), "nothing was left behind");
}

/// No folder of diffusers has the network that compares windows: one command adds it, to a folder, beside a file, or
/// for all models.
#[tokio::test]
async fn the_perceptual_network_is_added() {
    let case = Case::new().await;
    let here = |path: &str| case.dir.path().join(path);
    fs::create_dir_all(here("saved/unet")).unwrap();
    fs::create_dir(here("files")).unwrap();
    fs::write(here("files/model.safetensors"), "").unwrap();
    let file = case.hub.lock().repos["timm/vgg16.tv_in1k"].1["model.safetensors"].clone();
    fs::write(here("vgg16.safetensors"), file).unwrap();

    let (code, stdout, stderr) = case.run(&["weights", "perceptual", "saved"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("wrote `saved/perceptual`\n") && stdout.contains("BSD-2-Clause"), "{stdout}");
    let network = fs::read(here("saved/perceptual/model.safetensors")).unwrap();
    let (code, stdout, _) = case.run(&["weights", "perceptual", "saved"]).await;
    assert_eq!((code, stdout.as_str()), (0, "nothing to do; `saved/perceptual` is there\n"));

    // From a file it needs no network.
    let shared = case.dir.path().join("share/syncdiffusion/perceptual");
    let shared = shared.to_str().unwrap();
    for (target, folder) in
        [(&["saved"][..], "saved/perceptual"), (&["files/model.safetensors"], "files/perceptual"), (&[], shared)]
    {
        let arguments = [&["weights", "perceptual", "--file", "vgg16.safetensors"], target].concat();
        let output = case.command(&arguments).env("HF_ENDPOINT", "http://127.0.0.1:9").output().await.unwrap();
        let (code, stdout, stderr) = outcome(output);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.starts_with(&format!("wrote `{folder}`\n")), "{stdout}");
        assert!(fs::read(here(folder).join("model.safetensors")).unwrap() == network, "{folder}");
    }

    // A worker is told of the one for all models.
    let worker = here("worker");
    fs::write(&worker, "#!/bin/sh\necho \"$@\" > arguments\n").unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let worker = worker.to_str().unwrap();
    case.run(&["generate", "--prompt", "a", "--model", "files/model.safetensors", "--worker", worker]).await;
    let arguments = fs::read_to_string(here("arguments")).unwrap();
    assert!(arguments.contains(&format!("--perceptual {shared}")), "{arguments}");

    for (arguments, says) in [
        (&["no/such/model"][..], "there is no folder or file `no/such/model`"),
        (&["saved", "--file", "worker"], "`worker` cannot be used: "),
        (&["--perceptual-from", "nobody/nothing", "files/unknown"], "there is no folder or file `files/unknown`"),
    ] {
        let (code, stdout, stderr) = case.run(&[&["weights", "perceptual"], arguments].concat()).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
    fs::create_dir(here("other")).unwrap();
    let (code, _, stderr) = case.run(&["weights", "perceptual", "other", "--perceptual-from", "nobody/nothing"]).await;
    assert!(code == 1 && stderr.contains("nobody/nothing"), "{stderr}");
    assert!(!here("other/perceptual").exists());
}
