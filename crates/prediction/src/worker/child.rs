//! The process of a worker as the operating system sees it: how it is started and ended.
//!
//! What always holds on Linux: the process ends with this one, however that ends, and with it ends what it has started
//! itself, unless this process is killed.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child as Spawned, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::mutex::lock;

/// How far a worker steps back for the server.
const NICENESS: i32 = 5;
/// How often it is looked whether a process has ended.
const CHECK: Duration = Duration::from_millis(2);

/// A process.
#[derive(Debug)]
pub(super) struct Child(Mutex<State>);

#[derive(Debug)]
struct State {
    spawned: Spawned,
    /// It has been waited for: its number may be another's now.
    is_reaped: bool,
}

/// Starts a process that ends when the calling thread does. So that thread is to wait for it.
pub(super) fn spawn(command: &mut Command) -> io::Result<Spawned> {
    // Of its own, so that a signal to this group, such as ctrl-c, is for the server to answer, and that what the
    // process starts can be ended with it.
    command.process_group(0);
    #[cfg(target_os = "linux")]
    end_with_this_thread(command);
    command.spawn()
}

/// Has the kernel end a process together with the thread that starts it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "nothing else reaches a process between its fork and its exec")]
fn end_with_this_thread(command: &mut Command) {
    let server = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before that call. What this process holds open, a lock of the store among it, is held by
        // the other one, too, until it is another program.
        if rustix::process::getppid() == Some(server) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure makes two system calls. It allocates nothing, takes no lock and does not panic.
    unsafe { command.pre_exec(prepare) };
}

impl Child {
    pub(super) fn new(spawned: Spawned) -> Self {
        Self(Mutex::new(State { spawned, is_reaped: false }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Puts the process behind others where they want the same processor.
    pub(super) fn step_back(&self) -> io::Result<()> {
        let pid = Pid::from_child(&self.state().spawned);
        Ok(rustix::process::setpriority_process(Some(pid), NICENESS)?)
    }

    /// Ends the process, and what it has started, at once.
    pub(super) fn kill(&self) {
        self.state().kill();
    }

    /// Waits for the process, and kills it after `patience`. What it has started and left behind ends with it.
    pub(super) fn reap(&self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            let mut state = self.state();
            if !state.has_ended() && Instant::now() < until {
                drop(state);
                thread::sleep(CHECK);
                continue;
            }
            state.kill();
            let status = state.spawned.wait().ok();
            state.is_reaped = true;
            return status;
        }
    }
}

impl State {
    fn kill(&mut self) {
        if !self.is_reaped {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.spawned), Signal::KILL);
            let _ = self.spawned.kill();
        }
    }

    /// Whether it has ended, and waits to be waited for.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.spawned)), look), Ok(None))
    }
}
