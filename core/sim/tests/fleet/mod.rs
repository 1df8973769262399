//! How our Sentinels are made from their files.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::machine::{Fence, Setup};
use ringkeeper_sim::sentinel::{Boot, Make};

/// Makes machines that tell proxies where to write, and where not to.
#[allow(dead_code, reason = "not by every test")]
pub(crate) fn make_strict() -> Make {
    make_with(|setup| {
        setup.tells_workers = true;
        setup.fence = Fence::Strict(Duration::from_millis(200));
    })
}

/// Makes machines as a host does that has found these files.
pub(crate) fn make() -> Make {
    make_with(|_| {})
}

fn make_with(change: impl Fn(&mut Setup) + 'static) -> Make {
    Rc::new(move |boot: &Boot| {
        let path = PathBuf::from("sentinel.conf");
        let bytes = boot.files.get(&path).ok_or("there is no file")?;
        let text = String::from_utf8(bytes.clone()).map_err(|error| error.to_string())?;
        let mut setup = Setup::from_text(path, &text).map_err(|errors| format!("{errors:?}"))?;
        change(&mut setup);
        Ok(Box::new(SentinelWorker::new(setup, boot.seed, boot.now)))
    })
}
