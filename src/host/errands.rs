//! Does what workers have done outside their event loops: makes files durable and runs programs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ringkeeper_core::id::{JobId, Ticket};
use ringkeeper_core::io::{Change, Errand, Exit, Mail, PersistError, Program};
use ringkeeper_core::limits::FILE_BYTES_MAX;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::host::{reason, sys};

/// Why no file can be touched.
const NOBODY: &str = "the thread for files is gone";

/// Takes errands from one worker. Dropped, it lets what is under way finish.
pub(crate) struct Errands {
    files: mpsc::Sender<FileWork>,
    answer: Answer,
    running: Running,
}

/// What the thread for files does, one after the other.
enum FileWork {
    Persist(Ticket, Change),
    Read(Ticket, PathBuf),
}

/// How answers get back to the worker.
type Answer = Arc<dyn Fn(Mail) + Send + Sync>;

/// Processes that have not been waited for, so that their numbers are theirs still.
type Running = Arc<Mutex<BTreeMap<JobId, Pid>>>;

impl Errands {
    /// Starts the thread that writes and reads files; `answer` leaves mail for the worker.
    ///
    /// # Errors
    ///
    /// The system refuses a thread.
    pub(crate) fn start(answer: impl Fn(Mail) + Send + Sync + 'static) -> io::Result<Self> {
        let answer: Answer = Arc::new(answer);
        let (files, wanted) = mpsc::channel::<FileWork>();
        let tell = Arc::clone(&answer);
        std::thread::Builder::new().name("rk-files".to_owned()).spawn(move || {
            while let Ok(work) = wanted.recv() {
                tell(match work {
                    FileWork::Persist(ticket, change) => {
                        Mail::Persisted { ticket, result: persist(&change) }
                    }
                    FileWork::Read(ticket, path) => {
                        let result = read(&path).map_err(|error| reason(&error));
                        Mail::FileRead { ticket, result }
                    }
                });
            }
        })?;
        Ok(Self { files, answer, running: Running::default() })
    }

    /// Begins an errand; never blocks on a disk or a program.
    pub(crate) fn take(&self, errand: Errand) {
        match errand {
            Errand::Persist { ticket, change } => {
                if self.files.send(FileWork::Persist(ticket, change)).is_err() {
                    let result = Err(PersistError { message: NOBODY.to_owned() });
                    (self.answer)(Mail::Persisted { ticket, result });
                }
            }
            Errand::Read { ticket, path } => {
                if self.files.send(FileWork::Read(ticket, path)).is_err() {
                    let result = Err(NOBODY.to_owned());
                    (self.answer)(Mail::FileRead { ticket, result });
                }
            }
            Errand::Run { job, program } => self.run(job, &program),
            Errand::Kill { job, signal } => self.kill(job, signal),
        }
    }

    fn run(&self, job: JobId, program: &Program) {
        let fail = |error: &io::Error| {
            let exit = Exit::NotStarted(reason(error));
            (self.answer)(Mail::Exited { job, exit });
        };
        let mut child = match command(program).and_then(|mut command| command.spawn()) {
            Ok(child) => child,
            Err(error) => return fail(&error),
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            lock(&self.running).insert(job, pid);
        }
        let (answer, running) = (Arc::clone(&self.answer), Arc::clone(&self.running));
        let wait = move || {
            let exit = wait(&mut child, job, &running);
            answer(Mail::Exited { job, exit });
        };
        if let Err(error) = std::thread::Builder::new().name("rk-script".to_owned()).spawn(wait) {
            fail(&error);
        }
    }

    fn kill(&self, job: JobId, signal: i32) {
        let running = lock(&self.running);
        let (Some(pid), Some(signal)) = (running.get(&job), Signal::from_named_raw(signal)) else {
            return;
        };
        // The lock is held, so the process has not been waited for and the number is its own.
        let _ = rustix::process::kill_process(*pid, signal);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(program: &Program) -> io::Result<Command> {
    let mut words = program.argv.iter().map(|word| OsStr::from_bytes(word));
    let path = words.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(path);
    command.args(words).stdin(Stdio::null());
    sys::unblock_in(&mut command);
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    if let Some((user, group)) = &program.user {
        let (uid, own_group) = account(&fs::read_to_string("/etc/passwd")?, user)?;
        let gid = match group {
            Some(group) => group_number(&fs::read_to_string("/etc/group")?, group)?,
            // Not this process' own group: that may be root's.
            None => own_group,
        };
        // Further groups of this process are dropped by the library.
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Returns the numbers of a user and of its group, from a table in the form of `/etc/passwd`.
fn account(table: &str, user: &str) -> io::Result<(u32, u32)> {
    let found = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?;
        let gid = fields.next()?;
        (name == user || uid == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    });
    found.ok_or_else(|| nobody("user", user))
}

/// Returns the number of a group, from a table in the form of `/etc/group`; a number is its own.
fn group_number(table: &str, group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let found = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| nobody("group", group))
}

fn nobody(kind: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("this system has no {kind} {name}"))
}

fn wait(child: &mut Child, job: JobId, running: &Running) -> Exit {
    let pid = lock(running).get(&job).copied();
    if let Some(pid) = pid {
        // Waits without taking the number back, so that a signal meanwhile hits nobody else.
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(pid), how), Err(rustix::io::Errno::INTR))
        {
        }
    }
    let mut running = lock(running);
    running.remove(&job);
    match child.wait() {
        Ok(status) => exit(status),
        Err(error) => Exit::NotStarted(reason(&error)),
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(0),
    }
}

/// Reads a file that somebody wrote by hand.
///
/// # Errors
///
/// It can't be read, or is larger than [`FILE_BYTES_MAX`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

fn persist(change: &Change) -> Result<(), PersistError> {
    let result = match change {
        Change::Replace { path, bytes } => replace(path, bytes),
        Change::Append { path, at, bytes } => append(path, *at, bytes),
    };
    result.map_err(|(step, error)| PersistError { message: format!("{step}: {}", reason(&error)) })
}

type Step<T> = Result<T, (&'static str, io::Error)>;

fn at<T>(step: &'static str, result: io::Result<T>) -> Step<T> {
    result.map_err(|error| (step, error))
}

/// The folder of a file, as a path that can be opened.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Step<()> {
    // Through a symbolic link the file behind it is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&path).map_or(0o644, |found| found.permissions().mode() & 0o7777);
    let temporary = temporary_name(&path);
    let written = write_whole(&temporary, mode, bytes)
        .and_then(|()| at("renaming", fs::rename(&temporary, &path)));
    if written.is_err() {
        // It is nobody's; the old file stands.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    let folder = at("opening the folder", File::open(folder_of(&path)))?;
    at("fsync of the folder", folder.sync_all())
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn write_whole(path: &Path, mode: u32, bytes: &[u8]) -> Step<()> {
    // Left by a process of the same number that was killed. Made anew, so that nobody's link is
    // followed.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = at("opening a temporary file", options.open(path))?;
    at("writing", file.write_all(bytes))?;
    at("fsync", file.sync_all())
}

fn append(path: &Path, length: u64, bytes: &[u8]) -> Step<()> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o644);
    let mut file = at("opening", options.open(path))?;
    at("cutting", file.set_len(length))?;
    at("seeking", file.seek(SeekFrom::End(0)))?;
    at("writing", file.write_all(bytes))?;
    at("fsync", file.sync_all())?;
    if is_new {
        let folder = at("opening the folder", File::open(folder_of(path)))?;
        at("fsync of the folder", folder.sync_all())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringkeeper-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn desk() -> (Errands, mpsc::Receiver<Mail>) {
        let (sender, receiver) = mpsc::channel();
        let sender = Mutex::new(sender);
        let answer = move |mail| drop(lock(&sender).send(mail));
        (Errands::start(answer).unwrap(), receiver)
    }

    fn next(answers: &mpsc::Receiver<Mail>) -> Mail {
        answers.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn files_are_replaced_whole_and_keep_their_permissions() {
        let folder = folder("replace");
        let path = folder.join("s.conf");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&path, folder.join("link")).unwrap();
        let (errands, answers) = desk();
        let change = Change::Replace { path: folder.join("link"), bytes: b"new".to_vec() };
        errands.take(Errand::Persist { ticket: Ticket(1), change });
        assert!(matches!(next(&answers), Mail::Persisted { ticket: Ticket(1), result: Ok(()) }));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(folder.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "no temporary file is left");
        let change = Change::Replace { path: folder.join("no/file"), bytes: Vec::new() };
        errands.take(Errand::Persist { ticket: Ticket(2), change });
        let Mail::Persisted { result: Err(error), .. } = next(&answers) else { panic!() };
        assert_eq!(error.message, "opening a temporary file: No such file or directory");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn appending_goes_on_behind_what_is_known_to_be_good() {
        let folder = folder("append");
        let path = folder.join("journal");
        let (errands, answers) = desk();
        for (ticket, at, bytes) in [(1, 0, "abc"), (2, 3, "torn"), (3, 3, "de")] {
            let change = Change::Append { path: path.clone(), at, bytes: bytes.into() };
            errands.take(Errand::Persist { ticket: Ticket(ticket), change });
            assert!(matches!(next(&answers), Mail::Persisted { result: Ok(()), .. }));
        }
        assert_eq!(fs::read(&path).unwrap(), b"abcde");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_user_brings_its_own_group() {
        let table = "root:x:0:0:root:/root:/bin/sh\nkeep:x:104:110::/:/bin/false\n";
        assert_eq!(account(table, "keep").unwrap(), (104, 110));
        assert_eq!(account(table, "104").unwrap(), (104, 110));
        let error = account(table, "kee").unwrap_err();
        assert_eq!(error.to_string(), "this system has no user kee");
        assert_eq!(group_number("adm:x:4:keep\n", "adm").unwrap(), 4);
        assert_eq!(group_number("", "17").unwrap(), 17);
        assert!(group_number("adm:x:4:\n", "ad").is_err());
    }

    #[test]
    fn programs_run_with_their_words_and_can_be_killed() {
        let folder = folder("run");
        let (errands, answers) = desk();
        let program = |argv: &[&str]| Program {
            argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
            environment: vec![("WHO".to_owned(), "me".to_owned())],
            user: None,
        };
        let file = folder.join("out");
        let script = "printf '%s %s' \"$1\" \"$WHO\" > \"$0\"; exit 3";
        let words = ["/bin/sh", "-c", script, file.to_str().unwrap(), "a b"];
        errands.take(Errand::Run { job: JobId(1), program: program(&words) });
        let Mail::Exited { exit, .. } = next(&answers) else { panic!() };
        assert_eq!(exit, Exit::Code(3));
        assert_eq!(fs::read_to_string(&file).unwrap(), "a b me");

        errands.take(Errand::Run { job: JobId(2), program: program(&["/bin/sleep", "100"]) });
        errands.take(Errand::Kill { job: JobId(2), signal: libc::SIGKILL });
        let Mail::Exited { exit, .. } = next(&answers) else { panic!() };
        assert_eq!(exit, Exit::Signal(libc::SIGKILL));

        errands.take(Errand::Run { job: JobId(3), program: program(&["/no/such/program"]) });
        let Mail::Exited { exit, .. } = next(&answers) else { panic!() };
        assert_eq!(exit, Exit::NotStarted("No such file or directory".to_owned()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
