//! Single keys from a terminal; lines from anything else.

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::mpsc::Sender;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::Wake;

/// Standard input as it was, which it is again when this is dropped.
pub(super) struct Terminal(Option<Termios>);

impl Terminal {
    /// Remembers how standard input is.
    pub(super) fn keep() -> Self {
        let stdin = io::stdin();
        Self(stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten())
    }

    /// Has keys come one by one, without being shown.
    pub(super) fn take_keys(&self) {
        let Some(mut modes) = self.0.clone() else { return };
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Without it a key needs Enter behind it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(modes) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// Tells of every key that is pressed, on a thread of its own; the end of the input ends all.
///
/// # Errors
///
/// The system refuses a thread.
pub(super) fn listen(wakes: Sender<Wake>) -> io::Result<()> {
    std::thread::Builder::new().name("rk-keys".to_owned()).spawn(move || {
        let mut byte = [0];
        while let Ok(1) = io::stdin().read(&mut byte) {
            let [byte] = byte;
            if !byte.is_ascii_whitespace() && wakes.send(Wake::Key(char::from(byte))).is_err() {
                return;
            }
        }
        let _ = wakes.send(Wake::Leave);
    })?;
    Ok(())
}
