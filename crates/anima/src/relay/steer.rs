//! What a caller may say about where its call goes and how long it may take, by headers.
//!
//! `x-anima-deadline-ms` is for everyone; `x-anima-only`, `x-anima-ignore` and `x-anima-order` name
//! channels, which are the operator's business, so a setting must allow them. The timeouts that the
//! vendors' own libraries announce shorten a call, too. `x-anima-max-price` leaves out what costs
//! more. Invariant: a header only ever takes away.
//! Source: `wire-conventions` 4.1 and 4.6.

use std::time::Duration;

use http::HeaderMap;

use anima_core::failure::Failure;
use anima_core::money::{Money, decimal};
use anima_core::pricing::PriceList;
use anima_core::routing::{Seen, SkipReason};
use anima_core::snapshot::RouteEntry;
use anima_core::usage::Meter;

use crate::http::reply::Refusal;

/// Names in one list at most.
const NAMES_MAX: usize = 50;

/// What the caller wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steering {
    /// Only these channels, if any.
    pub only: Vec<String>,
    /// None of these.
    pub ignore: Vec<String>,
    /// These first, in this order.
    pub order: Vec<String>,
    /// What may be paid at a channel.
    pub ceiling: Ceiling,
    /// The whole call takes no longer than this.
    pub within: Option<Duration>,
    /// The caller's library gives up when nothing has come by then.
    pub first_byte_within: Option<Duration>,
    /// Say how the call was routed.
    pub trace: bool,
}

/// What a million tokens may cost at a channel, as decimals in the currency of its cost price.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    input: Option<String>,
    output: Option<String>,
}

impl Ceiling {
    fn read(headers: &HeaderMap, allowed: bool) -> Result<Self, Refusal> {
        const NAME: &str = "x-anima-max-price";
        let Some(list) = text(headers, NAME) else { return Ok(Self::default()) };
        if !allowed {
            return Err(refused(&format!("The header {NAME} is not allowed on this gateway.")));
        }
        let wrong = || {
            refused(&format!(
                "The header {NAME} must be what a million tokens may cost, such as \
                 `input=2.5,output=10`; one of both is enough."
            ))
        };
        let mut ceiling = Self::default();
        for part in list.split(',') {
            let (kind, amount) = part.split_once('=').ok_or_else(wrong)?;
            let amount = amount.trim();
            if !decimal(amount).is_ok_and(|(digits, _)| digits >= 0) {
                return Err(wrong());
            }
            let of = match kind.trim() {
                "input" => &mut ceiling.input,
                "output" => &mut ceiling.output,
                _ => return Err(wrong()),
            };
            *of = Some(amount.to_owned());
        }
        Ok(ceiling)
    }

    /// Whether a channel asks for more, or for an amount that cannot be compared.
    fn is_passed_by(&self, cost: &PriceList) -> bool {
        let limits = [(&self.input, Meter::InputTokens), (&self.output, Meter::OutputTokens)];
        limits.into_iter().any(|(most, meter)| {
            let (Some(most), Some(asked)) = (most, cost.per_million(meter)) else { return false };
            !Money::parse(most, cost.currency).is_ok_and(|most| asked <= most.units)
        })
    }
}

/// What the operator allows callers to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// To name channels.
    pub steering: bool,
    /// To see how their calls were routed.
    pub trace: bool,
}

impl Steering {
    /// Reads the headers.
    ///
    /// # Errors
    /// A header of ours that cannot be read, or that the operator does not allow.
    pub fn read(headers: &HeaderMap, allowed: Allowed) -> Result<Self, Refusal> {
        let within = match text(headers, "x-anima-deadline-ms") {
            None => None,
            Some(value) => {
                let ms = value.trim().parse::<u64>().ok().filter(|ms| *ms > 0);
                let ms = ms.ok_or_else(|| {
                    refused("The header x-anima-deadline-ms must be a whole number above 0.")
                })?;
                Some(Duration::from_millis(ms))
            }
        };
        let trace = text(headers, "x-anima-trace").is_some_and(|value| value.trim() == "1");
        if trace && !allowed.trace {
            return Err(refused("The header x-anima-trace is not allowed to this API key."));
        }
        let names = |name| names(headers, name, allowed.steering);
        Ok(Self {
            only: names("x-anima-only")?,
            ignore: names("x-anima-ignore")?,
            order: names("x-anima-order")?,
            ceiling: Ceiling::read(headers, allowed.steering)?,
            within,
            first_byte_within: library_timeout(headers),
            trace,
        })
    }
}

fn refused(message: &str) -> Refusal {
    Refusal::new(Failure::BodyInvalid, message)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn names(headers: &HeaderMap, name: &'static str, allowed: bool) -> Result<Vec<String>, Refusal> {
    let Some(list) = text(headers, name) else { return Ok(vec![]) };
    if !allowed {
        return Err(refused(&format!("The header {name} is not allowed on this gateway.")));
    }
    let names = list.split(',').map(str::trim).filter(|code| !code.is_empty());
    let names: Vec<String> = names.take(NAMES_MAX + 1).map(str::to_owned).collect();
    if names.is_empty() || names.len() > NAMES_MAX {
        let message = format!("The header {name} must be 1 to {NAMES_MAX} channels with commas.");
        return Err(refused(&message));
    }
    Ok(names)
}

/// How long the caller's own library waits for a first answer; what cannot be read says nothing.
fn library_timeout(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| text(headers, name)?.trim().parse::<f64>().ok();
    let seconds = ["x-stainless-timeout", "x-stainless-read-timeout", "x-litellm-timeout"];
    let seconds = seconds.into_iter().filter_map(number);
    let millis = number("x-portkey-request-timeout").map(|ms| ms / 1_000.0);
    let believable = |s: &f64| s.is_finite() && *s > 0.0 && *s < 1e6;
    let least = seconds.chain(millis).filter(believable).min_by(f64::total_cmp)?;
    Some(Duration::from_secs_f64(least))
}

/// Puts the caller's wishes over what is known about a route.
pub(super) fn apply(steering: &Steering, route: &RouteEntry, seen: Seen) -> Seen {
    let code = &*route.channel.code;
    let named = |list: &[String]| list.iter().any(|name| name == code);
    if (!steering.only.is_empty() && !named(&steering.only)) || named(&steering.ignore) {
        return Seen { skip: Some(SkipReason::Steered), until: None, slow: false, ..seen };
    }
    if route.cost.as_ref().is_some_and(|cost| steering.ceiling.is_passed_by(cost)) {
        let skip = Some(SkipReason::AbovePriceLimit);
        return Seen { skip, until: None, slow: false, ..seen };
    }
    let place = steering.order.iter().position(|name| name == code);
    Seen { rank: place.unwrap_or(steering.order.len()), ..seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed = Allowed { steering: true, trace: true };

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(n, v)| ((*n).parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn names_are_read_where_they_are_allowed() {
        let sent = headers(&[("x-anima-only", "a, b,"), ("x-anima-trace", "1")]);
        let read = Steering::read(&sent, ALL).unwrap();
        assert_eq!((read.only, read.trace), (vec!["a".to_owned(), "b".to_owned()], true));
        let none = Allowed { steering: false, trace: false };
        assert!(Steering::read(&sent, none).unwrap_err().message.contains("x-anima-trace"));
        let sent = headers(&[("x-anima-order", "a")]);
        assert!(Steering::read(&sent, none).unwrap_err().message.contains("x-anima-order"));
        assert!(Steering::read(&headers(&[("x-anima-ignore", " ,")]), ALL).is_err());
    }

    #[test]
    fn a_price_limit_is_one_or_two_decimals() {
        let read = |value| Steering::read(&headers(&[("x-anima-max-price", value)]), ALL);
        let ceiling = read("input=2.5, output=10").unwrap().ceiling;
        assert_eq!(
            (ceiling.input.as_deref(), ceiling.output.as_deref()),
            (Some("2.5"), Some("10"))
        );
        assert_eq!(read("output=0").unwrap().ceiling.input, None);
        for wrong in ["", "5", "input=", "input=-1", "input=cheap", "image=1", "input=1;output=2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let none = Allowed { steering: false, trace: true };
        assert!(Steering::read(&headers(&[("x-anima-max-price", "input=1")]), none).is_err());
    }

    #[test]
    fn a_deadline_must_be_a_number_and_a_librarys_timeout_may_be_anything() {
        let within = |value| Steering::read(&headers(&[("x-anima-deadline-ms", value)]), ALL);
        assert_eq!(within("250").unwrap().within, Some(Duration::from_millis(250)));
        for wrong in ["0", "-1", "soon", "1.5"] {
            assert!(within(wrong).is_err(), "{wrong}");
        }
        let library = |name, value| {
            Steering::read(&headers(&[(name, value)]), ALL).unwrap().first_byte_within
        };
        let seconds = Duration::from_mins(10);
        assert_eq!(library("x-stainless-timeout", "600"), Some(seconds));
        assert_eq!(library("x-stainless-read-timeout", "600.0"), Some(seconds));
        assert_eq!(library("x-portkey-request-timeout", "600000"), Some(seconds));
        for nothing in ["0", "inf", "not given", "-5"] {
            assert_eq!(library("x-stainless-timeout", nothing), None, "{nothing}");
        }
    }
}
