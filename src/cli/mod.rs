//! Command lines. The name that the program was started under decides which one is spoken.

mod getopt;
pub(crate) mod load;
mod nutcracker;
mod ringkeeper;
mod route;

pub(crate) use nutcracker::VERSION as NUTCRACKER_VERSION;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Runs the program; `arguments` start with its name.
pub(crate) fn main(mut arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == "nutcracker") {
        arguments.remove(0);
        nutcracker::main(&arguments)
    } else {
        ringkeeper::main(arguments)
    }
}

/// Returns the error's text without the number that the standard library adds, as `strerror`
/// would put it.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}
