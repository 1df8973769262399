//! Whether a program that a configuration names can be run, and is nobody else's to change.

use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::host::reason;

/// Why a program is not run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is not there, or cannot be looked at.
    Missing(String),
    /// It is no file, or nobody may execute it.
    NotExecutable,
    /// Somebody else than root can change it, or a folder on the way to it.
    Insecure {
        /// Which part of the path.
        component: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(reason) => write!(f, "it cannot be run: {reason}"),
            Self::NotExecutable => f.write_str("it is not executable"),
            Self::Insecure { component, why } => {
                write!(f, "it is not secure: {} {why}", component.display())
            }
        }
    }
}

/// Finds a program as the system would: a name without a slash along the usual path.
fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(program))
}

/// Checks that a program can be run.
pub(crate) fn check(program: &str) -> Result<(), Problem> {
    let path = find(program);
    let missing = |error: io::Error| Problem::Missing(reason(&error));
    let found = std::fs::metadata(&path).map_err(missing)?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(Problem::NotExecutable);
    }
    Ok(())
}

/// Checks that nobody but root can change a program or a folder on the way to it.
pub(crate) fn check_secure(program: &str) -> Result<(), Problem> {
    let path = find(program);
    // Where links lead counts, not where they lie.
    let path = std::fs::canonicalize(path).map_err(|error| Problem::Missing(reason(&error)))?;
    for component in path.ancestors() {
        let insecure = |why| Problem::Insecure { component: component.to_owned(), why };
        let found =
            std::fs::metadata(component).map_err(|error| Problem::Missing(reason(&error)))?;
        if found.uid() != 0 {
            return Err(insecure("does not belong to root"));
        }
        // In a folder with this bit others cannot replace what is not theirs.
        let is_sticky =
            found.is_dir() && component != Path::new(&path) && found.mode() & 0o1000 != 0;
        if found.mode() & 0o022 != 0 && !is_sticky {
            return Err(insecure("can be written by others"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_along_the_path_and_must_be_executable() {
        assert_eq!(check("true"), Ok(()));
        assert_eq!(check("/etc/passwd"), Err(Problem::NotExecutable));
        assert!(matches!(check("/no/such/program"), Err(Problem::Missing(_))));
    }

    #[test]
    fn the_part_that_others_can_change_is_named() {
        let folder = std::env::temp_dir().join(format!("ringkeeper-script-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("check.sh");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&program, 0o755);
        mode(&folder, 0o777);
        let Err(Problem::Insecure { component, .. }) = check_secure(program.to_str().unwrap())
        else {
            panic!("secure")
        };
        let named = std::fs::canonicalize(&folder).unwrap();
        // Without root's rights the file itself is not root's.
        assert!(component == named || component == named.join("check.sh"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
