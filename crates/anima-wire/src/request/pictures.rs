//! How many pictures a body asks for, in whatever place it says so.
//!
//! Vendors who copy OpenAI take their own members beside `n`, and many SDKs put them into an object
//! of extras. The body goes out as it came, so that what is held must cover the largest wish in it.
//! Not here: what is sold, which is counted in the answer. Invariant: no member of a known name
//! asks for more than what is found here. Source: `d-async-media`, `reference/README` fact 9.

use super::Error;
use super::draft::wrong;
use crate::json::{Kind, Node, Outline, Value};

/// Pictures that one call may ask for: OpenAI's bound on `n` of other endpoints, generously.
const PICTURES_MAX: u64 = 128;

/// Bytes of the longest name, and of the longest text that can be a number, however it is escaped.
pub(super) const TEXT_BYTES_MAX: usize = 64;

/// What vendors call the number of pictures, in small letters and without underscores.
const NAMES: &[&str] = &[
    "n",
    "numimages",
    "numberofimages",
    "numimagesperprompt",
    "numoutputs",
    "imagenum",
    "imagecount",
    "maximages",
    "batchsize",
    "samples",
    "samplecount",
];

/// Ark's switch for a series, and how many pictures that has when nothing bounds it.
const SERIES: (&str, &str, u64) = ("sequentialimagegeneration", "auto", 15);

/// The larger wish of the two, for a member of a body.
pub(super) fn most(before: u64, name: &str, value: &Value<'_>) -> Result<u64, Error> {
    let text = std::str::from_utf8(value.raw).unwrap_or_default();
    let wish = match value.kind {
        Kind::Object => {
            let outline = Outline::read(value.raw)?;
            within(outline.root())
        }
        // Pictures stand in texts, too, and these are not read.
        Kind::String if value.raw.len() <= TEXT_BYTES_MAX => {
            let text = value.text().map(|text| text.decode()).unwrap_or_default();
            of_field(name, &text)
        }
        Kind::Number => of_field(name, text),
        Kind::String | Kind::Null | Kind::False | Kind::True | Kind::Array => 0,
    };
    bounded(before.max(wish))
}

/// The same for a field of a form.
pub(super) fn most_of_field(before: u64, name: &str, text: &str) -> Result<u64, Error> {
    bounded(before.max(of_field(name, text)))
}

fn bounded(wish: u64) -> Result<u64, Error> {
    if wish > PICTURES_MAX {
        return Err(wrong("n", "and what stands for it must ask for at most 128 pictures"));
    }
    Ok(wish)
}

/// The largest wish among the members of an object, and of those within.
fn within(node: Node<'_, '_>) -> u64 {
    let wishes = node.members().map(|(name, value)| match value.kind() {
        Kind::Object => within(value),
        Kind::String => of_field(&name, &value.text().unwrap_or_default()),
        Kind::Number => of_field(&name, value.raw()),
        Kind::Null | Kind::False | Kind::True | Kind::Array => 0,
    });
    wishes.max().unwrap_or(0)
}

/// What a member or a field asks for; nothing when it is about something else.
fn of_field(name: &str, text: &str) -> u64 {
    if name.len() > TEXT_BYTES_MAX || text.len() > TEXT_BYTES_MAX {
        return 0;
    }
    let name: String =
        name.chars().filter(|sign| *sign != '_').map(|sign| sign.to_ascii_lowercase()).collect();
    if name == SERIES.0 {
        return if text == SERIES.1 { SERIES.2 } else { 0 };
    }
    if !NAMES.contains(&name.as_str()) {
        return 0;
    }
    whole(text.trim())
}

/// A number rounded up, however it is written. One that cannot be bounded asks for too many.
fn whole(text: &str) -> u64 {
    let (digits, rest) = text.split_once('.').unwrap_or((text, ""));
    if digits.starts_with('-') || digits.is_empty() {
        return 0;
    }
    if !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return if digits.bytes().all(|byte| byte.is_ascii_digit()) { u64::MAX } else { 0 };
    }
    let more = u64::from(rest.bytes().any(|byte| byte != b'0'));
    match digits.parse::<u64>() {
        Ok(number) => number.saturating_add(more),
        Err(_) if digits.bytes().all(|byte| byte.is_ascii_digit()) => u64::MAX,
        // `1e3` is a number of JSON's.
        Err(_) if text.contains(['e', 'E']) => u64::MAX,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_rounded_up_however_it_is_written() {
        for (text, wish) in
            [("4", 4), ("4.0", 4), ("4.5", 5), ("-4", 0), ("", 0), ("many", 0), ("1e1", u64::MAX)]
        {
            assert_eq!(whole(text), wish, "{text}");
        }
        assert_eq!(whole("99999999999999999999"), u64::MAX);
    }

    #[test]
    fn names_are_known_in_every_spelling_and_others_ask_for_nothing() {
        for name in ["n", "num_images", "numImages", "Batch_Size", "sampleCount"] {
            assert_eq!(of_field(name, "3"), 3, "{name}");
        }
        for name in ["seed", "width", "num_inference_steps"] {
            assert_eq!(of_field(name, "3"), 0, "{name}");
        }
        assert_eq!(of_field("sequential_image_generation", "auto"), 15);
        assert_eq!(of_field("sequential_image_generation", "disabled"), 0);
    }
}
