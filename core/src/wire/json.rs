//! Writes JSON. Source: RFC 8259.

use std::fmt::Write as _;
use std::time::Duration;

/// A document in the making. What is begun has to be ended; commas come by themselves.
#[derive(Debug, Default)]
pub struct Json {
    out: String,
    /// Something stands before, at this depth.
    has_before: bool,
}

impl Json {
    /// Begins an object, an array's element or a member's value.
    pub fn object(&mut self, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest('{', '}', write)
    }

    /// Begins an array.
    pub fn array(&mut self, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest('[', ']', write)
    }

    fn nest(&mut self, begin: char, end: char, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.comma();
        self.out.push(begin);
        self.has_before = false;
        write(self);
        self.out.push(end);
        self.has_before = true;
        self
    }

    /// Names the member whose value comes next.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.comma();
        quote(&mut self.out, name);
        self.out.push(':');
        self.has_before = false;
        self
    }

    /// Adds a number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.comma();
        // Writing to a String can't fail.
        let _ = write!(self.out, "{value}");
        self.has_before = true;
        self
    }

    /// Adds a time as milliseconds with their fraction.
    pub fn millis(&mut self, time: Duration) -> &mut Self {
        self.comma();
        let micros = time.as_micros();
        let _ = write!(self.out, "{}.{:03}", micros / 1000, micros % 1000);
        self.has_before = true;
        self
    }

    /// Adds a truth value.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.comma();
        self.out.push_str(if value { "true" } else { "false" });
        self.has_before = true;
        self
    }

    /// Adds a text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.comma();
        quote(&mut self.out, value);
        self.has_before = true;
        self
    }

    /// Returns the document.
    pub fn finish(self) -> String {
        self.out
    }

    fn comma(&mut self) {
        if self.has_before {
            self.out.push(',');
        }
    }
}

/// Appends a text in quotes.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_others() {
        let mut json = Json::default();
        json.object(|json| {
            json.key("a\"\\\n").text("\u{1}é");
            json.key("list").array(|json| {
                json.number(1).boolean(false);
                json.object(|_| {}).millis(Duration::from_micros(12_345));
            });
            json.key("last").number(u64::MAX);
        });
        let text = json.finish();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "a\"\\\n": "\u{1}é",
            "list": [1, false, {}, 12.345],
            "last": u64::MAX,
        });
        assert_eq!(read, expected);
    }
}
