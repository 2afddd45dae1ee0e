//! Tells code, comments and string literals of a Rust file apart.
//!
//! Not a tokenizer: only what is needed so that a rule about code is not fooled by text, and the
//! other way round.
//! Invariant: `code` has the line breaks of the original at the same places.

/// A file, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lexed {
    /// The text with comments and the insides of literals blanked.
    pub(super) code: String,
    /// Comments: line (from 1) and text.
    pub(super) comments: Vec<(usize, String)>,
    /// String literals: line (from 1) of the opening quote, and content.
    pub(super) strings: Vec<(usize, String)>,
}

/// Takes `text` apart.
pub(super) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer { rest: text.chars().collect(), at: 0, line: 1, out: Lexed::default() };
    while lexer.step() {}
    lexer.out
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    line: usize,
    out: Lexed,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// Moves over one character; keeps it in the code, or blanks it.
    fn advance(&mut self, keep: bool) -> char {
        let c = self.peek(0);
        self.at += 1;
        self.line += usize::from(c == '\n');
        self.out.code.push(if keep || c == '\n' { c } else { ' ' });
        c
    }

    /// `false` at the end.
    fn step(&mut self) -> bool {
        if self.at >= self.rest.len() {
            return false;
        }
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.follows_word() && self.raw_hashes(1).is_some() => {
                self.raw_string();
            }
            ('b' | 'c', 'r') if !self.follows_word() && self.raw_hashes(2).is_some() => {
                self.advance(true);
                self.raw_string();
            }
            ('\'', _) => self.quote(),
            _ => {
                self.advance(true);
            }
        }
        true
    }

    fn follows_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.rest.get(at));
        before.is_some_and(|c| c.is_alphanumeric() || *c == '_')
    }

    /// The number of `#` before the quote, when a raw string starts `ahead` of here.
    fn raw_hashes(&self, ahead: usize) -> Option<usize> {
        let hashes = self.rest.iter().skip(self.at + ahead).take_while(|c| **c == '#').count();
        (self.peek(ahead + hashes) == '"').then_some(hashes)
    }

    fn line_comment(&mut self) {
        let (line, mut words) = (self.line, String::new());
        while self.at < self.rest.len() && self.peek(0) != '\n' {
            words.push(self.advance(false));
        }
        self.out.comments.push((line, words));
    }

    fn block_comment(&mut self) {
        let (line, mut words, mut depth) = (self.line, String::new(), 0_usize);
        while self.at < self.rest.len() {
            let step = match (self.peek(0), self.peek(1)) {
                ('/', '*') => 1,
                ('*', '/') => -1,
                _ => 0,
            };
            words.push(self.advance(false));
            if step != 0 {
                words.push(self.advance(false));
                depth = depth.saturating_add_signed(step);
                if depth == 0 {
                    break;
                }
            }
        }
        self.out.comments.push((line, words));
    }

    fn string(&mut self) {
        let (line, mut words) = (self.line, String::new());
        self.advance(true);
        while self.at < self.rest.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                words.push(self.advance(false));
            }
            words.push(self.advance(false));
        }
        self.advance(true);
        self.out.strings.push((line, words));
    }

    fn raw_string(&mut self) {
        let hashes = self.raw_hashes(1).unwrap_or(0);
        let (line, mut words) = (self.line, String::new());
        for _ in 0..hashes + 2 {
            self.advance(true);
        }
        let closes = |lexer: &Self| {
            lexer.peek(0) == '"' && (1..=hashes).all(|ahead| lexer.peek(ahead) == '#')
        };
        while self.at < self.rest.len() && !closes(self) {
            words.push(self.advance(false));
        }
        for _ in 0..=hashes {
            self.advance(true);
        }
        self.out.strings.push((line, words));
    }

    /// A character literal, or a lifetime.
    fn quote(&mut self) {
        self.advance(true);
        let escaped = self.peek(0) == '\\';
        if !escaped && self.peek(1) != '\'' {
            return;
        }
        self.advance(false);
        if escaped {
            self.advance(false);
        }
        while self.at < self.rest.len() && self.peek(0) != '\'' {
            self.advance(false);
        }
        self.advance(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_code() {
        let lexed = lex("let a = \"fn x() { // no\"; // TODO\n");
        assert_eq!(lexed.code, "let a = \"              \";        \n");
        assert_eq!(lexed.comments, vec![(1, "// TODO".to_owned())]);
        assert_eq!(lexed.strings, vec![(1, "fn x() { // no".to_owned())]);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let lexed = lex("f(r#\"a \" b\"#, br\"\\\", for_r);");
        assert_eq!(lexed.strings, vec![(1, "a \" b".to_owned()), (1, "\\".to_owned())]);
        assert!(lexed.code.ends_with(", for_r);"));
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let lexed = lex("fn f<'a>(x: &'a str) { g('{', '\\'', '\"') }");
        assert!(lexed.strings.is_empty());
        assert_eq!(lexed.code.matches('{').count(), 1);
        assert!(lexed.code.ends_with(") }"));
    }

    #[test]
    fn comments_nest() {
        let lexed = lex("/* a /* b */ c */ d");
        assert_eq!(lexed.code.trim(), "d");
        assert_eq!(lexed.comments.len(), 1);
    }
}
