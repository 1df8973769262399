//! What the operator has taken out of service. It holds whatever the configuration says, until it
//! is taken up again or the process ends.

use std::collections::BTreeSet;
use std::fmt;

use ringkeeper_core::config::nutcracker::Config;
use ringkeeper_core::proxy::Plan;

/// Something that can be drained.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Every pool.
    Node,
    /// A pool: its clients go, and no others are let in.
    Pool(String),
    /// A server of a pool: it gets no more requests, others get its keys.
    Server {
        /// The pool's name.
        pool: String,
        /// The server's name.
        server: String,
    },
}

impl Target {
    /// Understands `node`, `pool NAME` and `server POOL NAME`.
    ///
    /// # Errors
    ///
    /// What is wrong, with what there is instead.
    pub(crate) fn parse(words: &[String], config: &Config) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let find = |name: &str| {
            let names = || config.pools.iter().map(|pool| pool.name.as_str());
            let pool = config.pools.iter().find(|pool| pool.name == name);
            pool.ok_or_else(|| format!("error: no pool \"{name}\"; there is {}", list(names())))
        };
        match words.as_slice() {
            ["node"] => Ok(Self::Node),
            ["pool", name] => Ok(Self::Pool(find(name)?.name.clone())),
            ["server", pool, name] => {
                let pool = find(pool)?;
                let names = || pool.servers.iter().map(|server| server.name.as_str());
                if !names().any(|known| known == *name) {
                    return Err(format!(
                        "error: pool \"{}\" has no server \"{name}\"; it has {}",
                        pool.name,
                        list(names())
                    ));
                }
                Ok(Self::Server { pool: pool.name.clone(), server: (*name).to_owned() })
            }
            _ => Err("error: name `node`, `pool NAME` or `server POOL NAME`".to_owned()),
        }
    }
}

/// Names to choose from, not too many.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SAID: usize = 10;
    let names: Vec<&str> = names.collect();
    let said = names.get(..SAID).unwrap_or(&names).join(", ");
    if names.len() > SAID { format!("{said} and {} more", names.len() - SAID) } else { said }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Server { pool, server } => write!(f, "server {server} of pool {pool}"),
        }
    }
}

/// Everything that is drained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained(BTreeSet<Target>);

impl Drained {
    /// Notes that a target is drained, or is no more.
    pub(crate) fn set(&mut self, target: &Target, is_drained: bool) {
        if is_drained {
            self.0.insert(target.clone());
        } else {
            self.0.remove(target);
        }
    }

    /// Tells whether a pool takes no clients.
    pub(crate) fn has_pool(&self, name: &str) -> bool {
        self.0.contains(&Target::Node) || self.0.contains(&Target::Pool(name.to_owned()))
    }

    /// Writes it for another process: a line per target, its words behind zeros.
    pub(crate) fn encode(&self) -> String {
        let line = |target: &Target| match target {
            Target::Node => "node".to_owned(),
            Target::Pool(pool) => format!("pool\0{pool}"),
            Target::Server { pool, server } => format!("server\0{pool}\0{server}"),
        };
        let lines: Vec<String> = self.0.iter().map(line).collect();
        lines.join("\n")
    }

    /// Reads what [`Drained::encode`] wrote, and passes over what it does not know.
    pub(crate) fn decode(text: &str) -> Self {
        let target = |line: &str| {
            let words: Vec<&str> = line.split('\0').collect();
            match *words.as_slice() {
                ["node"] => Some(Target::Node),
                ["pool", pool] => Some(Target::Pool(pool.to_owned())),
                ["server", pool, server] => {
                    Some(Target::Server { pool: pool.to_owned(), server: server.to_owned() })
                }
                _ => None,
            }
        };
        Self(text.lines().filter_map(target).collect())
    }

    /// Marks what is drained in a plan.
    pub(crate) fn apply(&self, plan: &mut Plan) {
        if self.0.is_empty() {
            return;
        }
        for pool in &mut plan.pools {
            pool.is_drained = self.has_pool(&pool.name);
            for server in &mut pool.servers {
                let (pool, name) = (pool.name.clone(), server.name.clone());
                server.is_drained = self.0.contains(&Target::Server { pool, server: name });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringkeeper_core::config::nutcracker;

    use super::*;

    #[test]
    fn what_is_not_there_is_answered_with_what_there_is() {
        let text = "a:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n   - 127.0.0.1:2:1 s\n";
        let config = nutcracker::parse("test.yml", text).config.unwrap();
        let parse = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            Target::parse(&words, &config)
        };
        assert_eq!(parse("node"), Ok(Target::Node));
        assert_eq!(parse("pool a"), Ok(Target::Pool("a".into())));
        let server = Target::Server { pool: "a".into(), server: "s".into() };
        assert_eq!(parse("server a s"), Ok(server));
        assert!(parse("pool b").unwrap_err().ends_with("there is a"));
        assert!(parse("server a t").unwrap_err().ends_with("it has s"));
        assert!(parse("").is_err());
    }

    #[test]
    fn what_is_drained_stays_so_in_another_process() {
        let server = Target::Server { pool: "a b".into(), server: "s".into() };
        let mut drained = Drained::default();
        assert_eq!(Drained::decode(&drained.encode()), drained);
        for target in [Target::Node, Target::Pool("a b".into()), server] {
            drained.set(&target, true);
            assert_eq!(Drained::decode(&drained.encode()), drained);
        }
        assert_eq!(Drained::decode("node\nswitch\0x\n"), {
            let mut node = Drained::default();
            node.set(&Target::Node, true);
            node
        });
    }
}
