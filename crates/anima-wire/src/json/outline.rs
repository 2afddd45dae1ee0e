//! A whole document as a flat list of where its values stand: one pass, nothing copied.
//!
//! For what must be understood in full, as when a request is converted; what only passes through
//! is read with the cursor alone. Not a tree of owned values: every entry borrows from the bytes.
//! Invariant: an outline exists only of a valid document; children stand right behind their parent,
//! and `next` skips over all of them.

use std::borrow::Cow;
use std::ops::Range;

use super::{Cursor, Error, Kind, Text, VALUES_MAX};

/// One value in the list.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    kind: Kind,
    /// The member's name, for a value inside an object.
    name: Option<Text<'a>>,
    start: usize,
    raw: &'a [u8],
    /// Where the next value on the same level stands.
    next: usize,
}

/// A document that was read.
#[derive(Debug, Clone)]
pub struct Outline<'a> {
    entries: Vec<Entry<'a>>,
}

/// One value of a document.
#[derive(Debug, Clone, Copy)]
pub struct Node<'t, 'a> {
    entries: &'t [Entry<'a>],
    at: usize,
}

/// A member of another kind than it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` must {must}")]
pub struct Misfit {
    /// Its name.
    pub member: &'static str,
    /// What it must do: `be a string`.
    pub must: &'static str,
}

impl<'a> Outline<'a> {
    /// Reads a document from where it can be trusted to be of honest size: a provider, ourselves.
    ///
    /// # Errors
    /// When it is not one valid JSON document.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::bounded(bytes, usize::MAX)
    }

    /// Reads a document that a caller sent.
    ///
    /// # Errors
    /// When it is not one valid JSON document, or has more than [`VALUES_MAX`] values.
    pub fn of_request(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::bounded(bytes, VALUES_MAX)
    }

    fn bounded(bytes: &'a [u8], most: usize) -> Result<Self, Error> {
        // Of real bodies about one value in sixteen bytes; prose has far fewer.
        let entries = Vec::with_capacity((bytes.len() / 24).clamp(8, 4096));
        let mut reader = Reader { bytes, entries, most };
        let mut cursor = Cursor::new(bytes);
        reader.read(&mut cursor, None)?;
        cursor.end()?;
        Ok(Self { entries: reader.entries })
    }

    /// The outermost value.
    pub fn root(&self) -> Node<'_, 'a> {
        Node { entries: &self.entries, at: 0 }
    }
}

/// An outline in the making.
struct Reader<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry<'a>>,
    /// Entries that it may have.
    most: usize,
}

impl<'a> Reader<'a> {
    /// Reads one value with everything in it. As deep as the cursor allows, [`super::DEPTH_MAX`].
    fn read(&mut self, cursor: &mut Cursor<'a>, name: Option<Text<'a>>) -> Result<(), Error> {
        let kind = cursor.kind()?;
        let at = self.entries.len();
        if at >= self.most {
            return Err(Error::TooMany);
        }
        let start = cursor.offset();
        self.entries.push(Entry { kind, name, start, raw: &[], next: at + 1 });
        match kind {
            Kind::Object => {
                cursor.members(|cursor, name| self.read(cursor, Some(name)))?;
            }
            Kind::Array => {
                cursor.elements(|cursor| self.read(cursor, None))?;
            }
            Kind::Null | Kind::False | Kind::True | Kind::Number | Kind::String => {
                cursor.value()?;
            }
        }
        let next = self.entries.len();
        if let Some(entry) = self.entries.get_mut(at) {
            entry.raw = self.bytes.get(start..cursor.offset()).unwrap_or_default();
            entry.next = next;
        }
        Ok(())
    }
}

impl<'t, 'a> Node<'t, 'a> {
    fn entry(&self) -> Option<&'t Entry<'a>> {
        self.entries.get(self.at)
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.entry().map_or(Kind::Null, |entry| entry.kind)
    }

    /// Its text as it stands, valid JSON.
    pub fn raw(&self) -> &'a str {
        let raw = self.entry().map(|entry| entry.raw).unwrap_or_default();
        std::str::from_utf8(raw).unwrap_or_default()
    }

    /// Where it stands in the document.
    pub fn range(&self) -> Range<usize> {
        self.entry().map_or(0..0, |entry| entry.start..entry.start + entry.raw.len())
    }

    /// The values inside, whether of an array or of an object.
    pub fn children(&self) -> impl Iterator<Item = Self> + use<'t, 'a> {
        let end = self.entry().map_or(0, |entry| entry.next);
        let (entries, mut at) = (self.entries, self.at + 1);
        std::iter::from_fn(move || {
            let node = Node { entries, at };
            let entry = node.entry().filter(|_| at < end)?;
            at = entry.next;
            Some(node)
        })
    }

    /// The elements of an array. Nothing for another kind.
    pub fn elements(&self) -> impl Iterator<Item = Self> + use<'t, 'a> {
        let is_array = self.kind() == Kind::Array;
        self.children().filter(move |_| is_array)
    }

    /// The members of an object with their names. Nothing for another kind.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'a, str>, Self)> + use<'t, 'a> {
        let is_object = self.kind() == Kind::Object;
        let named = |node: Self| Some((node.entry()?.name?.decode(), node));
        self.children().filter(move |_| is_object).filter_map(named)
    }

    /// The member of this name, unless it is null.
    pub fn get(&self, name: &str) -> Option<Self> {
        let found = self.children().find(|node| {
            let found = node.entry().and_then(|entry| entry.name);
            found.is_some_and(|found| found.raw() == name.as_bytes() || is_named(found, name))
        })?;
        (found.kind() != Kind::Null).then_some(found)
    }

    /// What a string says.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let [b'"', inner @ .., b'"'] = self.entry()?.raw else {
            return None;
        };
        Some(Text::new(inner).decode())
    }

    /// Whether it is this string.
    pub fn is(&self, text: &str) -> bool {
        self.text().is_some_and(|found| found == text)
    }

    /// A number without sign, fraction or exponent that fits.
    pub fn unsigned(&self) -> Option<u64> {
        self.raw().parse().ok()
    }

    /// A number as it is written.
    pub fn number(&self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then(|| self.raw())
    }

    /// True or false.
    pub fn flag(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            Kind::Null | Kind::Number | Kind::String | Kind::Array | Kind::Object => None,
        }
    }

    /// What the string of this name says. Another kind counts as absent.
    pub fn text_of(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.text()
    }

    /// The count of this name. Another kind counts as absent.
    pub fn count_of(&self, name: &str) -> Option<u64> {
        self.get(name)?.unsigned()
    }

    /// The string of this name, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn string(&self, member: &'static str) -> Result<Option<Cow<'a, str>>, Misfit> {
        self.strict(member, "be a string", Node::text)
    }

    /// The whole number of this name, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn whole(&self, member: &'static str) -> Result<Option<u64>, Misfit> {
        self.strict(member, "be a whole number from 0 up", Node::unsigned)
    }

    /// The number of this name as it is written, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn any_number(&self, member: &'static str) -> Result<Option<&'a str>, Misfit> {
        self.strict(member, "be a number", Node::number)
    }

    /// The switch of this name, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn switch(&self, member: &'static str) -> Result<Option<bool>, Misfit> {
        self.strict(member, "be true or false", Node::flag)
    }

    /// The object of this name, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn object(&self, member: &'static str) -> Result<Option<Self>, Misfit> {
        let object = |node: &Self| (node.kind() == Kind::Object).then_some(*node);
        self.strict(member, "be an object", object)
    }

    /// The array of this name, strictly.
    ///
    /// # Errors
    /// When there is something else.
    pub fn array(&self, member: &'static str) -> Result<Option<Self>, Misfit> {
        let array = |node: &Self| (node.kind() == Kind::Array).then_some(*node);
        self.strict(member, "be an array", array)
    }

    fn strict<T>(
        &self,
        member: &'static str,
        must: &'static str,
        read: impl FnOnce(&Self) -> Option<T>,
    ) -> Result<Option<T>, Misfit> {
        let Some(node) = self.get(member) else {
            return Ok(None);
        };
        read(&node).map(Some).ok_or(Misfit { member, must })
    }
}

/// Whether an escaped name says this.
fn is_named(found: Text<'_>, name: &str) -> bool {
    found.raw().contains(&b'\\') && found.decode() == name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_and_elements_are_found_where_they_stand() {
        let bytes = br#" {"a":[1,{"b":null,"c":"x\n"},[]],"\u0064":true,"e":{}} "#;
        let outline = Outline::read(bytes).unwrap();
        let root = outline.root();
        let names: Vec<_> = root.members().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["a", "d", "e"]);
        let list: Vec<_> = root.get("a").unwrap().elements().collect();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].unsigned(), Some(1));
        assert_eq!(list[1].text_of("c").unwrap(), "x\n");
        assert!(list[1].get("b").is_none() && list[2].elements().next().is_none());
        assert_eq!(root.get("d").unwrap().flag(), Some(true));
        assert_eq!(&bytes[root.get("e").unwrap().range()], b"{}");
        assert_eq!(root.string("a"), Err(Misfit { member: "a", must: "be a string" }));
        assert_eq!(root.whole("z"), Ok(None));
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        let outline = Outline::read(b"[1]").unwrap();
        assert!(outline.root().get("a").is_none() && outline.root().members().next().is_none());
        assert!(Outline::read(b"[1] 2").is_err() && Outline::read(b"").is_err());
    }

    #[test]
    fn a_request_of_more_values_than_anybody_needs_is_refused() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(Outline::of_request(list(VALUES_MAX - 1).as_bytes()).is_ok());
        let over = list(VALUES_MAX);
        assert_eq!(Outline::of_request(over.as_bytes()).unwrap_err(), Error::TooMany);
        assert!(Outline::read(over.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn an_outline_agrees_with_serde_and_never_panics(
            bytes in "[\\[\\]{}\",:a1\\\\ tnule.-]{0,40}",
        ) {
            let outline = Outline::read(bytes.as_bytes());
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&bytes) {
                let outline = outline.unwrap();
                let again: serde_json::Value = serde_json::from_str(outline.root().raw()).unwrap();
                prop_assert_eq!(again, value);
            }
        }
    }
}
