//! The names of the commands.

/// A command, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `get key…`
    Get,
    /// `gets key…`
    Gets,
    /// `gat exptime key…`
    Gat,
    /// `gats exptime key…`
    Gats,
    /// `set key flags exptime bytes`, then the value.
    Set,
    /// As [`Verb::Set`], if the key is absent.
    Add,
    /// As [`Verb::Set`], if the key is there.
    Replace,
    /// As [`Verb::Set`], behind the value that is there.
    Append,
    /// As [`Verb::Set`], before the value that is there.
    Prepend,
    /// As [`Verb::Set`] with a version behind the length.
    Cas,
    /// `incr key delta`
    Incr,
    /// `decr key delta`
    Decr,
    /// `touch key exptime`
    Touch,
    /// `delete key [0]`
    Delete,
    /// `mg key flags…`
    MetaGet,
    /// `ms key bytes flags…`, then the value.
    MetaSet,
    /// `md key flags…`
    MetaDelete,
    /// `ma key flags…`
    MetaArithmetic,
    /// `me key [b]`
    MetaDebug,
    /// `mn`: answered with `MN`.
    MetaNoop,
    /// `version`
    Version,
    /// `verbosity level`
    Verbosity,
    /// `flush_all [delay]`
    FlushAll,
    /// `stats [what]`
    Stats,
    /// `quit`
    Quit,
    /// A command that manages one server: `slabs`, `lru`, `watch` and the like.
    Admin,
}

impl Verb {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        Self::Get,
        Self::Gets,
        Self::Gat,
        Self::Gats,
        Self::Set,
        Self::Add,
        Self::Replace,
        Self::Append,
        Self::Prepend,
        Self::Cas,
        Self::Incr,
        Self::Decr,
        Self::Touch,
        Self::Delete,
        Self::MetaGet,
        Self::MetaSet,
        Self::MetaDelete,
        Self::MetaArithmetic,
        Self::MetaDebug,
        Self::MetaNoop,
        Self::Version,
        Self::Verbosity,
        Self::FlushAll,
        Self::Stats,
        Self::Quit,
        Self::Admin,
    ];

    /// Finds a command; names are in lower case.
    #[inline]
    pub fn lookup(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"get" => Self::Get,
            b"set" => Self::Set,
            b"gets" => Self::Gets,
            b"mg" => Self::MetaGet,
            b"ms" => Self::MetaSet,
            b"md" => Self::MetaDelete,
            b"ma" => Self::MetaArithmetic,
            b"mn" => Self::MetaNoop,
            b"me" => Self::MetaDebug,
            b"gat" => Self::Gat,
            b"gats" => Self::Gats,
            b"add" => Self::Add,
            b"replace" => Self::Replace,
            b"append" => Self::Append,
            b"prepend" => Self::Prepend,
            b"cas" => Self::Cas,
            b"incr" => Self::Incr,
            b"decr" => Self::Decr,
            b"touch" => Self::Touch,
            b"delete" => Self::Delete,
            b"version" => Self::Version,
            b"verbosity" => Self::Verbosity,
            b"flush_all" => Self::FlushAll,
            b"stats" => Self::Stats,
            b"quit" => Self::Quit,
            b"cache_memlimit" | b"debug" | b"extstore" | b"lru" | b"lru_crawler" | b"misbehave"
            | b"refresh_certs" | b"shutdown" | b"slabs" | b"watch" => Self::Admin,
            _ => return None,
        })
    }

    /// Returns the name as memcached writes it; empty for [`Verb::Admin`], which has many.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Gets => "gets",
            Self::Gat => "gat",
            Self::Gats => "gats",
            Self::Set => "set",
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Cas => "cas",
            Self::Incr => "incr",
            Self::Decr => "decr",
            Self::Touch => "touch",
            Self::Delete => "delete",
            Self::MetaGet => "mg",
            Self::MetaSet => "ms",
            Self::MetaDelete => "md",
            Self::MetaArithmetic => "ma",
            Self::MetaDebug => "me",
            Self::MetaNoop => "mn",
            Self::Version => "version",
            Self::Verbosity => "verbosity",
            Self::FlushAll => "flush_all",
            Self::Stats => "stats",
            Self::Quit => "quit",
            Self::Admin => "",
        }
    }

    /// Tells whether the reply is values, of as many keys as are asked for.
    #[inline]
    pub const fn is_retrieval(self) -> bool {
        matches!(self, Self::Get | Self::Gets | Self::Gat | Self::Gats)
    }

    /// Returns the argument that is the key, or the first of the keys; 0 when there is none.
    #[inline]
    pub const fn key_at(self) -> usize {
        match self {
            Self::Gat | Self::Gats => 2,
            Self::Get
            | Self::Gets
            | Self::Set
            | Self::Add
            | Self::Replace
            | Self::Append
            | Self::Prepend
            | Self::Cas
            | Self::Incr
            | Self::Decr
            | Self::Touch
            | Self::Delete
            | Self::MetaGet
            | Self::MetaSet
            | Self::MetaDelete
            | Self::MetaArithmetic
            | Self::MetaDebug => 1,
            Self::MetaNoop
            | Self::Version
            | Self::Verbosity
            | Self::FlushAll
            | Self::Stats
            | Self::Quit
            | Self::Admin => 0,
        }
    }
}
