//! Passwords that a configuration keeps in files of their own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::native::{SecretFile, SecretOf, Settings, Watch};
use ringkeeper_core::config::nutcracker::{Config, Secret};

use crate::host::reason;

/// Longest password that is read, bytes; Redis itself takes no longer lines before AUTH.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Puts each password where it belongs; returns what is to be said about their files. A relative
/// path is meant from the folder of the configuration at `path`.
pub(super) fn fetch(
    path: &Path,
    secrets: &[SecretFile],
    config: &mut Config,
    settings: &mut Settings,
) -> Vec<Diagnostic> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut found = Vec::new();
    for secret in secrets {
        let (password, complaint) = match read(&folder.join(&secret.path)) {
            Ok((password, true)) => {
                let message = "everybody on this host may read the file with the password";
                (Some(password), Some((Severity::Warning, "secret-open", message.to_owned())))
            }
            Ok((password, false)) => (Some(password), None),
            Err(problem) => {
                let message = format!("the file with the password {problem}");
                (None, Some((Severity::Error, "secret-unreadable", message)))
            }
        };
        if let Some(password) = password {
            place(&secret.of, &password, config, settings);
        }
        found.extend(complaint.map(|(severity, code, message)| Diagnostic {
            severity,
            code,
            span: secret.place.span.clone(),
            line: secret.place.line,
            column: secret.place.column,
            message,
            expected: None,
            hint: (severity == Severity::Warning).then(|| "chmod 600".to_owned()),
            related: None,
        }));
    }
    found
}

fn place(of: &SecretOf, password: &Secret, config: &mut Config, settings: &mut Settings) {
    if let SecretOf::Pool(name) = of
        && let Some(pool) = config.pools.iter_mut().find(|pool| pool.name == *name)
    {
        pool.redis_auth = Some(password.clone());
    }
    let own = match (&mut settings.sentinel, of) {
        (Some(Watch::Own(own)), _) => own,
        (Some(Watch::Follow(follow)), SecretOf::Sentinel) => {
            follow.password = Some(password.clone());
            return;
        }
        (Some(Watch::Follow(_)) | None, _) => return,
    };
    match of {
        SecretOf::Sentinel => {
            own.config.server.requirepass = Some(password.clone());
            own.config.sentinel_pass = Some(password.clone());
        }
        SecretOf::Master(name) => {
            let masters = own.config.masters.iter_mut();
            for master in masters.filter(|master| master.name.as_str() == name) {
                master.auth_pass = Some(password.clone());
            }
        }
        SecretOf::Masters => {
            for master in own.config.masters.iter_mut().filter(|one| one.auth_pass.is_none()) {
                master.auth_pass = Some(password.clone());
            }
        }
        // What clients of the pool say is what its servers ask for.
        SecretOf::Pool(name) => {
            let pool = config.pools.iter().find(|pool| pool.name == *name);
            let servers = pool.map_or(&[][..], |pool| pool.servers.as_slice());
            let is_its = |name: &str| servers.iter().any(|one| one.shard.as_deref() == Some(name));
            let masters = own.config.masters.iter_mut().filter(|one| one.auth_pass.is_none());
            for master in masters.filter(|master| is_its(master.name.as_str())) {
                master.auth_pass = Some(password.clone());
            }
        }
    }
}

/// Returns the first line of a file, and whether everybody may read it.
fn read(path: &Path) -> Result<(Secret, bool), String> {
    let cannot = |error: io::Error| format!("can't be read: {}", reason(&error));
    let file = File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err("has an empty first line".to_owned());
    }
    if u64::try_from(line.len()).is_ok_and(|len| len > SECRET_BYTES_MAX) {
        return Err(format!("has a line of more than {SECRET_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok((Secret::new(text), mode & 0o004 != 0))
}
