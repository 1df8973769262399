//! The file that has the users where the configuration names one: read at the start and at ACL
//! LOAD, written at ACL SAVE and never else.

use std::path::PathBuf;

use super::Sentinel;
use super::acl::{DEFAULT, UNKNOWN_COMMAND, User, Users};
use super::acl_command::NO_ACL_FILE;
use super::clients::{ClientKey, Served};
use crate::id::Ticket;
use crate::io::{Change, Errand, Output, PersistError};
use crate::limits;
use crate::time::Instant;
use crate::wire::resp::encode;

/// What a client wants done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Load,
    Save,
}

/// Reads users; `name` is what the file is called in complaints. All lines count or none.
///
/// # Errors
///
/// Everything that is wrong, in Redis' words.
pub(super) fn parse(name: &str, text: &str) -> Result<Users, String> {
    let mut users = Users::default();
    let mut wrong = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Err(why) = parse_line(name, number, line, &mut users) {
            wrong.push_str(&why);
        }
    }
    if !wrong.is_empty() {
        wrong.push_str(
            "WARNING: ACL errors detected, no change to the previously active ACL rules was \
             performed",
        );
        return Err(wrong);
    }
    if users.get(DEFAULT).is_none() {
        users.put(DEFAULT, User::everybody());
    }
    Ok(users)
}

fn parse_line(name: &str, number: usize, line: &str, users: &mut Users) -> Result<(), String> {
    let mut words = line.split(' ');
    let (Some("user"), Some(user)) = (words.next(), words.next()) else {
        return Err(format!(
            "{name}:{number} should start with user keyword followed by the username. "
        ));
    };
    if users.get(user).is_some() {
        return Err(format!("WARNING: Duplicate user '{user}' found on line {number}. "));
    }
    if users.iter().len() >= limits::SENTINEL_USERS_MAX {
        return Err(format!("{name}:{number}: too many users. "));
    }
    let rules: Vec<&[u8]> = words.map(str::as_bytes).collect();
    let mut made = User::default();
    made.apply_all(&rules).map_err(|(rule, why)| {
        // Other rules may hold passwords, which are not repeated.
        if why == UNKNOWN_COMMAND {
            let rule = String::from_utf8_lossy(&rule).into_owned();
            return format!("{name}:{number}: Error in applying operation '{rule}': {why}. ");
        }
        format!("{name}:{number}: {why}. ")
    })?;
    users.put(user, made);
    Ok(())
}

impl Sentinel {
    /// Begins to do what a client wants done with the file.
    pub(super) fn use_acl_file(&mut self, key: ClientKey, wish: Wish, out: &mut Vec<u8>) -> Served {
        let Some(file) = &self.globals.server.aclfile else {
            encode::error(out, NO_ACL_FILE);
            return Served::Done;
        };
        let path = PathBuf::from(file);
        let ticket = self.store.draw_ticket();
        self.acl_wishes.insert(ticket, key);
        let errand = match wish {
            Wish::Load => Errand::Read { ticket, path },
            Wish::Save => {
                let mut text = self.users.lines().join("\n");
                text.push('\n');
                let change = Change::Replace { path, bytes: text.into_bytes() };
                Errand::Persist { ticket, change }
            }
        };
        self.out.push_back(Output::Errand(errand));
        Served::Waits
    }

    /// Takes in what became of a write. Returns false if it was not that of the file with users.
    pub(super) fn acl_saved(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: &Result<(), PersistError>,
    ) -> bool {
        let Some(key) = self.acl_wishes.remove(&ticket) else { return false };
        if let Err(error) = result {
            self.note(format!("The file with users can't be written: {}", error.message));
        }
        self.client_answered(now, key, |out| match result {
            Ok(()) => encode::simple(out, "OK"),
            Err(_) => encode::error(
                out,
                "ERR There was an error trying to save the ACLs. Please check the server logs for \
                 more information",
            ),
        });
        true
    }

    /// Takes in what the file holds.
    pub(super) fn file_read(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Vec<u8>, String>,
    ) {
        let Some(key) = self.acl_wishes.remove(&ticket) else { return };
        let Some(name) = self.globals.server.aclfile.clone() else { return };
        let users = result
            .map_err(|why| format!("Error loading ACLs, opening file '{name}': {why}"))
            .and_then(|bytes| parse(&name, &String::from_utf8_lossy(&bytes)));
        match users {
            Ok(users) => {
                self.users = users;
                self.client_answered(now, key, |out| encode::simple(out, "OK"));
                self.leave_all_but_default();
            }
            Err(why) => {
                self.client_answered(now, key, |out| encode::error(out, &format!("ERR {why}")));
            }
        }
    }

    /// Ends the connections of all users but the default one, as Redis does: what they may do was
    /// decided anew.
    fn leave_all_but_default(&mut self) {
        let of_others = self.clients.iter().filter(|(_, client)| client.user != DEFAULT);
        let doomed: Vec<ClientKey> = of_others.map(|(key, _)| key).collect();
        doomed.into_iter().for_each(|key| self.clients.close(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_file_are_those_of_redis() {
        let text = "user bob on >secret +ping &*\n\n  user al off\r\n";
        let users = parse("users.acl", text).unwrap();
        let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let expected = [
            "user al off resetchannels -@all".to_owned(),
            format!("user bob on #{digest} &* -@all +ping"),
            "user default on nopass ~* &* +@all".to_owned(),
        ];
        assert_eq!(users.lines(), expected);
        assert!(users.lets_everybody_in(), "a file without the default user locks nobody out");
    }

    #[test]
    fn all_that_is_wrong_is_told_and_passwords_are_not() {
        let text = "user bob on >other +ping\nuser eve on +nosuch\nbad\nuser x y on\nuser bob\n";
        let why = parse("users.acl", text).unwrap_err();
        let expected = "users.acl:2: Error in applying operation '+nosuch': Unknown command or \
                        category name in ACL. users.acl:3 should start with user keyword followed \
                        by the username. users.acl:4: Syntax error. WARNING: Duplicate user 'bob' \
                        found on line 5. WARNING: ACL errors detected, no change to the previously \
                        active ACL rules was performed";
        assert_eq!(why, expected);
        let why = parse("f", "user eve on #nodigest\n").unwrap_err();
        assert!(!why.contains("nodigest"), "{why}");
    }
}
