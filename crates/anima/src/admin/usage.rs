//! What calls used, cost and were charged: `GET /usage`, grouped by whatever the operator asks for.
//!
//! Read only, by one report at a time on each node: it reads many rows, over connections that keys
//! are looked up with, too. Amounts are decimal strings in their currency, and currencies are never
//! added up. Invariant: a page's `next` carries the period that the first page had, so that pages
//! belong together although time goes on. Sources: SPEC 10 and 15.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use anima_core::clock::Timestamp;
use anima_core::money::Money;
use anima_store::ledger::money::{
    Group, LineKey, Quantity, Span, UsageError, UsageLine, UsageOf, UsagePage,
};

use super::Admin;
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;

const DAY_MS: i64 = 86_400_000;
/// The period when the caller does not say.
const USUAL_MS: i64 = 30 * DAY_MS;
/// The longest: a year, whichever; a month by the hour.
const MOST_MS: i64 = 366 * DAY_MS;
const MOST_BY_HOUR_MS: i64 = 31 * DAY_MS;

/// Until a report is refused because others are being made.
const WAIT: Duration = Duration::from_secs(25);

/// Everything that a query may say.
const QUERY: &[&str] =
    &["group_by", "from", "to", "channel", "model", "alias", "app", "key", "after", "limit"];

const GROUPS: &str =
    "some of channel,model,alias,app,key and at most one of hour,day,month, with commas between";

/// What `after` begins with: what the page before was asked for.
type Cursor = (String, i64, i64, [String; 7]);

/// A page of lines.
///
/// # Errors
/// A bad query; a period with too many calls; the ledger's.
pub(crate) async fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(QUERY)?;
    let of = asked(admin, call)?;
    let UsagePage { lines, has_more } = read(admin, of.clone()).await?;
    let next = lines.last().filter(|_| has_more).map(|line| cursor(&of, &line.key));
    let items = lines.iter().map(|line| show(line, &of)).collect();
    Ok(Reply::page(items, json!(next))
        .with_member("from", json!(of.from))
        .with_member("to", json!(of.to)))
}

/// In a task of its own: a client that leaves does not end the query, so its turn is not over.
async fn read(admin: &Admin, of: UsageOf) -> Result<UsagePage, Problem> {
    let waiting = tokio::time::timeout(WAIT, Arc::clone(&admin.usage_turn).acquire_owned());
    let Ok(Ok(turn)) = waiting.await else {
        let detail = "other reports are being made on this node, try again";
        return Err(Problem::new(Code::ServiceUnavailable, detail));
    };
    let money = Arc::clone(&admin.stores.money);
    let reading = tokio::spawn(async move {
        let page = money.usage(of).await;
        drop(turn);
        page
    });
    match reading.await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(UsageError::Ledger(error))) => Err(error.into()),
        Ok(Err(UsageError::TooLong)) => {
            Err(Problem::invalid("from", "a shorter period: there are too many calls in this one"))
        }
        Err(error) => {
            tracing::error!(%error, "failed to add up usage");
            Err(Problem::new(Code::Internal, "the server's log says more"))
        }
    }
}

fn asked(admin: &Admin, call: &Call) -> Result<UsageOf, Problem> {
    let (span, by) = groups(given(call, "group_by").unwrap_or_default())?;
    let (before, after) = match given(call, "after") {
        None => (None, LineKey::default()),
        Some(text) => {
            let expected = "`next` of the page before, and the same `group_by`";
            let bad = || Problem::invalid("after", expected);
            let (groups, from, to, key) = read_cursor(text).ok_or_else(bad)?;
            if groups != named(span, &by) {
                return Err(bad());
            }
            (Some((from, to)), key)
        }
    };
    let to = instant(call, "to")?.or_else(|| before.map(|(_, to)| to));
    let to = to.unwrap_or_else(|| admin.clock.now());
    let from = instant(call, "from")?.or_else(|| before.map(|(from, _)| from));
    let from = from.unwrap_or_else(|| to.plus_millis(USUAL_MS.saturating_neg()));
    check(from, to, span)?;
    let only = Group::ALL.iter().filter_map(|group| {
        let code = given(call, group.name())?;
        Some((*group, code.to_owned()))
    });
    Ok(UsageOf { from, to, only: only.collect(), span, by, after, limit: call.limit()? })
}

/// A member of the query that says something.
fn given<'c>(call: &'c Call, name: &str) -> Option<&'c str> {
    call.query.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

fn instant(call: &Call, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = given(call, name) else { return Ok(None) };
    let expected = "an RFC 3339 time such as 2026-01-31T00:00:00Z";
    Timestamp::parse(text).map(Some).ok_or_else(|| Problem::invalid(name, expected))
}

fn check(from: Timestamp, to: Timestamp, span: Option<Span>) -> Result<(), Problem> {
    if from > to {
        return Err(Problem::invalid("from", "a time that is not after `to`"));
    }
    let (most_ms, expected) = match span {
        Some(Span::Hour) => (MOST_BY_HOUR_MS, "at most 31 days before `to`, by the hour"),
        None | Some(Span::Day | Span::Month) => (MOST_MS, "at most 366 days before `to`"),
    };
    if from.plus_millis(most_ms) < to {
        return Err(Problem::invalid("from", expected));
    }
    Ok(())
}

fn groups(text: &str) -> Result<(Option<Span>, BTreeSet<Group>), Problem> {
    let (mut by, mut spans) = (BTreeSet::new(), BTreeSet::new());
    for name in text.split(',').filter(|name| !name.is_empty()) {
        if let Some(group) = Group::ALL.iter().find(|group| group.name() == name) {
            by.insert(*group);
        } else {
            spans.insert(name);
        }
    }
    let span = match spans.into_iter().collect::<Vec<_>>()[..] {
        [] => None,
        ["hour"] => Some(Span::Hour),
        ["day"] => Some(Span::Day),
        ["month"] => Some(Span::Month),
        _ => return Err(Problem::invalid("group_by", GROUPS)),
    };
    Ok((span, by))
}

const fn span_name(span: Span) -> &'static str {
    match span {
        Span::Hour => "hour",
        Span::Day => "day",
        Span::Month => "month",
    }
}

/// The groups that are asked for, in the order of lines.
fn named(span: Option<Span>, by: &BTreeSet<Group>) -> String {
    let names = span.map(span_name).into_iter().chain(by.iter().map(|group| group.name()));
    names.collect::<Vec<_>>().join(",")
}

fn cursor(of: &UsageOf, last: &LineKey) -> String {
    let LineKey { span, channel, model, alias, app, key, currency } = last.clone();
    let key = [span, channel, model, alias, app, key, currency];
    let cursor: Cursor = (named(of.span, &of.by), of.from.micros(), of.to.micros(), key);
    URL_SAFE_NO_PAD.encode(json!(cursor).to_string())
}

fn read_cursor(text: &str) -> Option<(String, Timestamp, Timestamp, LineKey)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (groups, from, to, key): Cursor = serde_json::from_slice(&bytes).ok()?;
    // PostgreSQL has no text with U+0000.
    if key.iter().any(|part| part.contains('\0')) {
        return None;
    }
    let [span, channel, model, alias, app, key, currency] = key;
    let key = LineKey { span, channel, model, alias, app, key, currency };
    Some((groups, Timestamp::from_micros(from), Timestamp::from_micros(to), key))
}

fn show(line: &UsageLine, of: &UsageOf) -> Value {
    let mut shown = Map::new();
    if let Some(span) = of.span {
        shown.insert(span_name(span).to_owned(), json!(line.key.span));
    }
    for group in &of.by {
        // What was never sent anywhere has neither channel nor model.
        let code = Some(line.key.of(*group)).filter(|code| !code.is_empty());
        shown.insert(group.name().to_owned(), json!(code));
    }
    for (name, count) in [
        ("requests", line.requests),
        ("errors", line.errors),
        ("open", line.open),
        ("attempts", line.attempts),
        ("failed_attempts", line.failed_attempts),
        ("estimated_attempts", line.estimated_attempts),
        ("tokens", line.tokens()),
    ] {
        shown.insert(name.to_owned(), json!(count));
    }
    shown.insert("meters".to_owned(), meters(line, |q| q.served));
    shown.insert("meters_estimated".to_owned(), meters(line, |q| q.estimated));
    shown.insert("meters_wasted".to_owned(), meters(line, |q| q.wasted));
    for (name, units) in [
        ("charge", line.charge),
        ("refunds", line.refunds),
        ("revenue", line.revenue),
        ("uncollected", line.uncollected),
        ("fx", line.fx),
        ("cost", line.cost),
        ("cost_estimated", line.cost_estimated),
        ("cost_wasted", line.cost_wasted),
        ("margin", line.margin()),
    ] {
        shown.insert(name.to_owned(), json!(Money::new(units, line.currency).to_string()));
    }
    shown.insert("currency".to_owned(), json!(line.currency.code()));
    Value::Object(shown)
}

/// The meters that counted anything.
fn meters(line: &UsageLine, of: impl Fn(&Quantity) -> i64) -> Value {
    let counted = line.meters.iter().map(|(name, quantity)| (name, of(quantity)));
    let counted = counted.filter(|(_, quantity)| *quantity != 0);
    Value::Object(counted.map(|(name, quantity)| (name.clone(), json!(quantity))).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn groups_are_read_in_any_order_and_named_in_one() {
        let read = |text| groups(text).map(|(span, by)| named(span, &by));
        for (text, named) in [
            ("", ""),
            ("channel,day", "day,channel"),
            ("key,app,alias,model,channel,hour", "hour,channel,model,alias,app,key"),
            ("month,month,", "month"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(named));
        }
        for bad in ["hour,day", "Channel", "channel, day", "time", "currency"] {
            assert_eq!(read(bad).unwrap_err().member.as_deref(), Some("group_by"), "{bad}");
        }
    }

    #[test]
    fn a_cursor_reads_back_and_garbage_is_none() {
        let key = LineKey { span: "2026-01".into(), app: "ä,\"".into(), ..LineKey::default() };
        let of = UsageOf {
            from: Timestamp::from_micros(-1),
            to: Timestamp::from_micros(7),
            only: BTreeMap::new(),
            span: Some(Span::Month),
            by: BTreeSet::from([Group::App]),
            after: LineKey::default(),
            limit: 1,
        };
        let read = read_cursor(&cursor(&of, &key)).unwrap();
        assert_eq!(read, ("month,app".to_owned(), of.from, of.to, key));
        let with_nul = json!(("", 0, 0, ["\0", "", "", "", "", "", ""])).to_string();
        for garbage in ["", "x", "e30", &URL_SAFE_NO_PAD.encode(with_nul)] {
            assert_eq!(read_cursor(garbage), None, "{garbage}");
        }
    }
}
