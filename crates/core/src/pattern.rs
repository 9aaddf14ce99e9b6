//! Regular expressions of routes.
//!
//! The Gateway API leaves the dialect to implementations and names RE2 as the common one. This is RE2's without Unicode classes,
//! over bytes: `.` is any byte but a newline, `\\d`, `\\w`, `\\s` and `(?i)` mean ASCII. A pattern must hold for the whole value, as
//! Envoy has it, so `^` and `$` are not needed. Matching takes time in proportion to the value, never more; patterns that would
//! need much memory are refused when they are compiled.

/// Longest pattern, in bytes (the Gateway API's longest value of a match on a header).
pub const MAX_PATTERN: usize = 4096;
/// Most memory of a compiled pattern, and of what is remembered while matching, in bytes each.
const MAX_MEMORY: usize = 256 * 1024;

/// A compiled pattern. Compile it when configuration arrives: that costs far more than matching.
#[derive(Debug, Clone)]
pub struct Pattern(regex::bytes::Regex);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Compiles.
    ///
    /// # Errors
    /// When the text is no regular expression, or one that is too large.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError(format!("is longer than {MAX_PATTERN} bytes")));
        }
        // Alone first: what closes groups that it did not open must not close ours.
        compile(text)?;
        compile(&format!("\\A(?:{text})\\z")).map(Self)
    }

    /// Whether it holds for the whole value.
    pub fn holds(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }
}

fn compile(text: &str) -> Result<regex::bytes::Regex, PatternError> {
    let builder = || {
        let mut builder = regex::bytes::RegexBuilder::new(text);
        builder.unicode(false).size_limit(MAX_MEMORY).dfa_size_limit(MAX_MEMORY).nest_limit(64);
        builder
    };
    builder().build().map_err(|error| {
        PatternError(match error {
            regex::Error::CompiledTooBig(_) => "needs too much memory: repeat less".to_owned(),
            // The last line of the parser's message says what is wrong, the ones before draw where.
            error => match error.to_string().lines().last() {
                Some(line) => line.trim_start_matches("error: ").to_owned(),
                None => "is no regular expression".to_owned(),
            },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_for_whole_values() {
        for (pattern, value, holds) in [
            ("/a/v[0-9]+", "/a/v12", true),
            ("/a/v[0-9]+", "/a/v12/x", false),
            ("/a/v[0-9]+", "x/a/v12", false),
            ("a|ab", "ab", true),
            ("^a$", "a", true),
            ("a", "a\n", false),
            ("", "", true),
            ("", "a", false),
            ("(?i)ada", "ADA", true),
            (r"\d+", "12", true),
            (r"\w+", "é", false),
            (".+", "é", true),
            ("(?m)a$", "a\nb", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().holds(value.as_bytes()), holds, "{pattern} {value:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            ("a)|(?:b", "unopened group"),
            ("*", "repetition operator missing expression"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?x)a # b", "unclosed group"),
            ("(a{1,200}){1,200}", "needs too much memory"),
        ] {
            let error = Pattern::new(pattern).unwrap_err().to_string();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)).is_err());
    }
}
