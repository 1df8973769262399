//! Command lines. The name that the program was started under decides which one is spoken.

mod getopt;
mod import;
mod load;
mod manual;
mod nutcracker;
mod ringkeeper;
mod route;
mod secrets;

use std::ffi::OsString;
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
