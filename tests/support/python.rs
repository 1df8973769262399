//! Packages of Python's index that a test runs as an independent client.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::lab::{program, skip};

/// The release of redis-py that the tests were written for.
pub const REDIS_PY: &str = "redis==8.1.0";

/// Installs a release of a package, `name==version`, for these tests only, once; none, with the
/// reason said, when it can't be had. The result belongs into `PYTHONPATH`.
pub fn package(release: &str) -> Option<PathBuf> {
    static PLACES: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let place = {
        let mut places = PLACES.lock().unwrap();
        places.entry(release.to_owned()).or_insert_with(|| install(release)).clone()
    };
    if place.is_none() {
        skip(&format!("{release} can't be installed"));
    }
    place
}

fn install(release: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(release.replace("==", "-"));
    if place.is_dir() {
        return Some(place);
    }
    let python = program("python3")?;
    // Under another name until it is whole.
    let part = place.with_extension(format!("part-{}", std::process::id()));
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", release, "--target"];
    let output = Command::new(python).args(pip).arg(&part).output().ok()?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    fs::rename(&part, &place).ok().or_else(|| place.is_dir().then_some(()))?;
    Some(place)
}
