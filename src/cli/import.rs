//! `ringkeeper import`: a file of twemproxy's in our own form.

use std::path::Path;

use ringkeeper_core::config::native;

use super::load;

/// Returns the text of a `ringkeeper.yml` for the `nutcracker.yml` at `path`; of a keepalived.conf
/// the section that has the virtual routers.
///
/// # Errors
///
/// What is wrong with the file, for people.
pub(super) fn import(path: &Path) -> Result<String, String> {
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
    let text = native::write(&loaded.name, loaded.text()).map_err(|_| loaded.human())?;
    // It must never be the operator who finds that out.
    if native::parse("imported", &text).config.is_none() {
        return Err(format!(
            "error: {} can't be written in the new form; please report this\n",
            loaded.name
        ));
    }
    Ok(text)
}
