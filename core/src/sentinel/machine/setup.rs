//! What a Sentinel begins with.

use std::path::PathBuf;

use crate::config::diagnostic::Diagnostic;
use crate::config::sentinel::{self as config, Config, PORT_DEFAULT, RunId};
use crate::rng::Rng;

/// What a Sentinel begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the file says.
    pub config: Config,
    /// Where what is learnt goes.
    pub keeping: Keeping,
    /// What is told of the process.
    pub process: Process,
}

/// Where what must not be forgotten is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In the file that was read, as genuine Sentinels do.
    InPlace {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// What INFO and HELLO tell of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Names this run of the process.
    pub run_id: RunId,
    /// The process' number.
    pub id: u32,
    /// Where clients reach it; what peers are told unless the file says otherwise.
    pub port: u16,
    /// The file as the operator named it.
    pub config_file: String,
    /// The program's file.
    pub executable: String,
    /// The operating system, its version and the processor.
    pub os: String,
    /// Microseconds from the Unix epoch to the start of the clock.
    pub unix_micros_at_start: u64,
}

impl Setup {
    /// Reads a file as it stands on disk, to be rewritten in place.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_text(path: PathBuf, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let name = path.display().to_string();
        let parsed = config::parse(&name, text);
        let config = parsed.config.ok_or(parsed.diagnostics)?;
        let port = config.server.port.unwrap_or(PORT_DEFAULT);
        Ok(Self {
            config,
            keeping: Keeping::InPlace { path, text: text.to_owned() },
            process: Process {
                run_id: RunId::from_random([0; 20]),
                id: 1,
                port,
                config_file: name,
                executable: String::new(),
                os: String::new(),
                unix_micros_at_start: 0,
            },
        })
    }
}

/// Draws forty digits.
pub(super) fn draw_id(rng: &mut Rng) -> RunId {
    let mut bits = [0; 20];
    for chunk in bits.chunks_mut(8) {
        let drawn = rng.next_u64().to_le_bytes();
        for (bit, byte) in chunk.iter_mut().zip(drawn) {
            *bit = byte;
        }
    }
    RunId::from_random(bits)
}
