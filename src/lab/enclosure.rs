//! Namespaces around the whole laboratory: everything in them ends with it, whatever ends it.
#![cfg(target_os = "linux")]

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};

use super::network::tool;
use super::terminal::Terminal;
use crate::host::signal::{Persona, Signal, Signals};

/// What is tried before: all that is needed inside.
const TRIAL: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add trial && \
    ip link add br0 type bridge && ip link add p0 type veth peer name e0 netns trial && \
    ip netns exec trial \"$1\" --version";

/// Who we are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The user that called, who is root.
    Root,
    /// Root of a user namespace, which any user may be.
    Mapped,
}

impl Shape {
    /// Prepares a program in namespaces of its own, which end with the thread that starts it.
    fn wrap(self, program: &Path) -> Command {
        let mut command = tool("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        if self == Self::Mapped {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.arg(program);
        command
    }
}

/// Finds out which namespaces can be made here.
///
/// # Errors
///
/// None; the text says why.
pub(super) fn find_shape(program: &Path) -> Result<Shape, String> {
    let mut reasons = Vec::new();
    let shapes: &[Shape] = match rustix::process::geteuid().is_root() {
        true => &[Shape::Root, Shape::Mapped],
        false => &[Shape::Mapped],
    };
    for &shape in shapes {
        let mut command = shape.wrap(Path::new("sh"));
        match command.args(["-c", TRIAL, "sh"]).arg(program).output() {
            Ok(output) if output.status.success() => return Ok(shape),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                reasons.push(said.lines().last().unwrap_or("no reason was given").to_owned());
            }
            Err(error) => reasons.push(format!("setpriv: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// Sockets that listen on the host's loopback interface, wherever who accepts there is.
pub(super) struct Doors {
    listeners: Vec<TcpListener>,
}

impl Doors {
    /// Opens as many as wanted, side by side from `first`; 0: anywhere.
    ///
    /// # Errors
    ///
    /// A port is taken.
    pub(super) fn open(first: u16, count: u16) -> io::Result<Self> {
        let port = |step: u16| if first == 0 { 0 } else { first.saturating_add(step) };
        let open = |step| {
            let port = port(step);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .map_err(|error| io::Error::other(format!("port {port} of 127.0.0.1: {error}")))
        };
        Ok(Self { listeners: (0..count).map(open).collect::<io::Result<_>>()? })
    }

    /// Gives the sockets up to whoever accepts in this process.
    pub(super) fn into_listeners(self) -> Vec<TcpListener> {
        self.listeners
    }

    /// Returns the numbers under which a program that is started finds them.
    fn bequeath(&self) -> io::Result<Vec<String>> {
        for listener in &self.listeners {
            fcntl_setfd(listener, FdFlags::empty())?;
        }
        Ok(self.listeners.iter().map(|one| one.as_raw_fd().to_string()).collect())
    }
}

/// Starts this program again, inside; waits for its end and returns its code.
///
/// # Errors
///
/// It cannot be started.
pub(super) fn enter(shape: Shape, program: &Path, doors: Doors) -> io::Result<ExitCode> {
    // The terminal is put back here, since the one inside may be killed.
    let _terminal = Terminal::keep();
    let signals = Signals::hold(Persona::Ringkeeper)?;
    let mut command = shape.wrap(program);
    command.args(std::env::args_os().skip(1)).arg("--inside").arg(doors.bequeath()?.join(","));
    let mut child = command.stdin(Stdio::inherit()).spawn()?;
    // Only the one inside accepts; at its end callers are refused.
    drop(doors);
    let code = wait(&mut child, &signals)?;
    Ok(ExitCode::from(code))
}

/// Waits for the end. Ctrl-C is heard by everybody at the terminal, so the one inside ends in order;
/// whoever asks by another signal, or twice, has all of it killed.
fn wait(child: &mut Child, signals: &Signals) -> io::Result<u8> {
    let mut interrupts = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        match signals.wait(Duration::from_millis(50))? {
            Some(Signal::Interrupt) if interrupts == 0 => interrupts += 1,
            Some(Signal::Interrupt | Signal::Terminate | Signal::Hangup) => {
                child.kill()?;
                child.wait()?;
                return Ok(130);
            }
            Some(_) | None => {}
        }
    }
}
