//! How our Sentinels are made from their files.

use std::path::PathBuf;
use std::rc::Rc;

use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::machine::Setup;
use ringkeeper_sim::sentinel::{Boot, Make};

/// Makes machines as a host does that has found these files.
pub(crate) fn make() -> Make {
    Rc::new(|boot: &Boot| {
        let path = PathBuf::from("sentinel.conf");
        let bytes = boot.files.get(&path).ok_or("there is no file")?;
        let text = String::from_utf8(bytes.clone()).map_err(|error| error.to_string())?;
        let setup = Setup::from_text(path, &text).map_err(|errors| format!("{errors:?}"))?;
        Ok(Box::new(SentinelWorker::new(setup, boot.seed, boot.now)))
    })
}
