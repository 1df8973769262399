//! `ringkeeper import`: a file of twemproxy's in our own form.

use std::fs;
use std::path::Path;

use ringkeeper_core::config::native::{self, Old};
use ringkeeper_core::config::render;

use super::load;
use crate::host::{self, reason};

/// Returns the text of a `ringkeeper.yml` for the `nutcracker.yml` at `path`, and for the
/// `sentinel.conf` and the `keepalived.conf` beside it; of a keepalived.conf alone the section that
/// has the virtual routers.
///
/// # Errors
///
/// What is wrong with the file, for people.
pub(super) fn import(
    path: &Path,
    sentinel: Option<&Path>,
    keepalived: Option<&Path>,
) -> Result<String, String> {
    #[cfg(target_os = "linux")]
    if super::keepalived::is_one(path) {
        return super::keepalived::import(path);
    }
    let loaded = load::check(path);
    if loaded.is_native {
        return Err(format!("error: {} has the form of ringkeeper.yml already\n", loaded.name));
    }
    if loaded.has_errors() {
        return Err(loaded.human());
    }
    let sentinel = sentinel.map(read).transpose()?;
    let old = sentinel.as_ref().map(|(name, text)| Old { name, text });
    let pools = Old { name: &loaded.name, text: loaded.text() };
    let mut text = native::write(pools, old).map_err(|found| match &old {
        Some(Old { name, text }) => render::human(name, text, &found, host::has_colours()),
        None => loaded.human(),
    })?;
    if let Some(path) = keepalived {
        add_routers(&mut text, path)?;
    }
    // It must never be the operator who finds that out.
    if native::parse("imported", &text).config.is_none() {
        return Err(format!(
            "error: {} can't be written in the new form; please report this\n",
            loaded.name
        ));
    }
    Ok(text)
}

fn read(path: &Path) -> Result<(String, String), String> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(format!("error: {name} can't be read: {}\n", reason(&error))),
    }
}

/// Adds the virtual routers of a keepalived.conf. Where it has virtual servers too it stays in use
/// as it is, and a comment says so.
fn add_routers(text: &mut String, path: &Path) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    if let Some(section) = super::keepalived::section(path)? {
        text.push('\n');
        text.push_str(&section);
        return Ok(());
    }
    let (name, _) = read(path)?;
    let comment = format!(
        "# The virtual routers stay in {name}, which is read as it is:\n#   ringkeeper run -c \
         ringkeeper.yml --keepalived {name}\n\n"
    );
    text.insert_str(0, &comment);
    Ok(())
}
