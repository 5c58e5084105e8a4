//! Signals of the operating system: what stops a server, and what interrupts a command.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Exit code of a command that was interrupted, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Waits for ctrl-c or SIGTERM.
pub(crate) async fn interrupt() {
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => _ = term.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = term => {}
    }
}

/// Stops a server at the first signal, and ends the process at the second, which loses nothing that was accepted.
pub(crate) fn stop_on_signals(stop: &CancellationToken, ignore_term: bool) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if name == "SIGTERM" && ignore_term {
                continue;
            }
            if stop.is_cancelled() {
                tracing::warn!(name, "second signal; exiting at once");
                telemetry::flush();
                std::process::exit(1);
            }
            tracing::info!(name, "stopping on a signal");
            stop.cancel();
        }
    });
    Ok(())
}
