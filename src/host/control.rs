//! How an operator reaches the running process: a unix socket for a line each way.
//!
//! A request is one line of words, `reload` or `drain pool alpha`. The answer's first line is
//! `ok` or `error`; what follows until the end is for people.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::host::signal;

/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 4096;

/// How long whoever connected may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// How long the process may take to answer. An upgrade starts a program and hands everything over.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether it was done.
    pub(crate) is_ok: bool,
    /// What to tell the operator; lines.
    pub(crate) text: String,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The words of the request.
    pub(crate) words: Vec<String>,
    answer: mpsc::Sender<(Answer, Written)>,
}

/// Dropped when an answer is on its way.
#[derive(Debug)]
struct Written(#[expect(dead_code, reason = "its drop is what counts")] mpsc::Sender<()>);

impl Asked {
    /// Answers it; returns when the answer is on its way, so that the process may end then.
    pub(crate) fn answer(self, answer: Answer) {
        let (written, is_written) = mpsc::channel();
        // Who asked may have left.
        if self.answer.send((answer, Written(written))).is_ok() {
            let _ = is_written.recv_timeout(REQUEST_PATIENCE);
        }
    }
}

/// The socket. Dropped, its file goes.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    /// Device and inode, so that nobody else's file is removed.
    identity: Option<(u64, u64)>,
    asked: mpsc::Receiver<Asked>,
}

/// Returns where the socket is if the operator does not say; none if no place is fit for it.
///
/// Only a folder that others may not write to is fit: what lies there is obeyed.
pub(crate) fn default_path() -> Option<PathBuf> {
    let is_root = rustix::process::geteuid().is_root();
    let folder = match std::env::var_os("RUNTIME_DIRECTORY").filter(|value| !value.is_empty()) {
        // systemd made it for us.
        Some(folder) => PathBuf::from(folder),
        None if is_root => PathBuf::from("/run/ringkeeper"),
        None => match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder).join("ringkeeper"),
            None => {
                let user = rustix::process::geteuid().as_raw();
                std::env::temp_dir().join(format!("ringkeeper-{user}"))
            }
        },
    };
    Some(folder.join("control.sock"))
}

/// Makes the folder of the default place, and sees that it is ours.
fn prepare_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(folder)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !is_ours || metadata.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("others may write to {}", folder.display()),
        ));
    }
    Ok(())
}

impl Control {
    /// Opens the socket at `path`, or at the default place, and answers there.
    ///
    /// # Errors
    ///
    /// Another process answers there, or the system refuses.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => {
                let path = default_path().ok_or(io::ErrorKind::NotFound)?;
                prepare_folder(&path)?;
                path
            }
        };
        if UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process answers at {}", path.display()),
            ));
        }
        if std::fs::symlink_metadata(&path).is_ok_and(|data| data.file_type().is_socket()) {
            std::fs::remove_file(&path)?;
        }
        // Bound under the umask of the moment; nobody can connect before `listen`, which std
        // does in the same call, so the folder or the check of the peer has to keep others out.
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let metadata = std::fs::symlink_metadata(&path).ok();
        let identity = metadata.map(|data| (data.dev(), data.ino()));
        let (sender, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("rk-control".to_owned())
            .spawn(move || serve(&listener, &sender))?;
        Ok(Self { path, identity, asked })
    }

    /// Returns the next request.
    pub(crate) fn next(&self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    /// Returns where the socket is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path).ok().map(|data| (data.dev(), data.ino()));
        if now.is_some() && now == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn serve(listener: &UnixListener, asked: &mpsc::Sender<Asked>) {
    for stream in listener.incoming() {
        match stream {
            // Who can't be talked to does not get an answer.
            Ok(stream) => drop(serve_one(&stream, asked)),
            // Out of descriptors, most likely; not to be answered by a busy loop.
            Err(_) => std::thread::sleep(REQUEST_PATIENCE / 50),
        }
    }
}

fn serve_one(mut stream: &UnixStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
    if !is_trusted(stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
    stream.set_write_timeout(Some(REQUEST_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let words = line.split_whitespace().map(str::to_owned).collect();
    let (answer, answered) = mpsc::channel();
    asked.send(Asked { words, answer }).map_err(io::Error::other)?;
    signal::call_for_attention();
    let Ok((Answer { is_ok, text }, _written)) = answered.recv_timeout(ANSWER_PATIENCE) else {
        let text = b"error\nthe process did not answer in time; its log may tell why\n";
        return stream.write_all(text);
    };
    stream.write_all(if is_ok { b"ok\n" } else { b"error\n" })?;
    stream.write_all(text.as_bytes())
}

/// Tells whether somebody may command this process: its own user and root.
#[cfg(target_os = "linux")]
fn is_trusted(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// The permissions of the file decide.
#[cfg(not(target_os = "linux"))]
const fn is_trusted(_stream: &UnixStream) -> bool {
    true
}

/// Asks the process that answers at `path`, or at the default place.
///
/// # Errors
///
/// Nobody answers there.
pub(crate) fn ask(path: Option<&Path>, words: &[&str]) -> Result<Answer, String> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => default_path().ok_or("there is no place for a control socket")?,
    };
    let explain = |error: io::Error| {
        format!(
            "no ringkeeper answers at {}: {}; name its socket with --control, as it was started",
            path.display(),
            super::reason(&error)
        )
    };
    let mut stream = UnixStream::connect(&path).map_err(explain)?;
    let patience = ANSWER_PATIENCE + REQUEST_PATIENCE;
    stream.set_read_timeout(Some(patience)).map_err(explain)?;
    stream.write_all(format!("{}\n", words.join(" ")).as_bytes()).map_err(explain)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(explain)?;
    match text.split_once('\n') {
        Some(("ok", rest)) => Ok(Answer { is_ok: true, text: rest.to_owned() }),
        Some(("error", rest)) => Ok(Answer { is_ok: false, text: rest.to_owned() }),
        _ => Err(format!("{} gave no answer; may this user command it?", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringkeeper-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_question_gets_its_answer_and_the_file_goes_with_the_socket() {
        // The thread that asks rings the bell of this process.
        crate::host::sys::ignore_signal(libc::SIGALRM);
        let path = place("control");
        let control = Control::open(Some(&path)).unwrap();
        assert_eq!(control.path(), path);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let asking = path.clone();
        let client = std::thread::spawn(move || ask(Some(&asking), &["drain", "pool", "x"]));
        let asked = loop {
            if let Some(asked) = control.next() {
                break asked;
            }
            std::thread::yield_now();
        };
        assert_eq!(asked.words, ["drain", "pool", "x"]);
        asked.answer(Answer { is_ok: false, text: "no pool x\n".to_owned() });
        let answer = client.join().unwrap().unwrap();
        assert_eq!(answer, Answer { is_ok: false, text: "no pool x\n".to_owned() });
        assert!(Control::open(Some(&path)).is_err(), "it is taken");
        drop(control);
        assert!(!path.exists());
        assert!(ask(Some(&path), &["reload"]).unwrap_err().contains("--control"));
    }
}
