//! Hours, days and months where the customer lives.
//!
//! A budget ends when the day ends on the customer's wall, also on the days on which clocks change.
//! Invariant: the spans of one window and zone follow each other without gap or overlap. The zones
//! are those bundled with this program, so that every node has the same.

use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{ToSpan as _, Zoned};

use crate::clock::Timestamp;
use crate::config::Window;

/// A span of time, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// From here on.
    pub from: Timestamp,
    /// Up to here; [`Timestamp::MAX`] when it never ends.
    pub to: Timestamp,
}

impl Span {
    /// All of time.
    pub const EVER: Self = Self { from: Timestamp::from_micros(0), to: Timestamp::MAX };

    /// Whether it never ends.
    pub fn is_ever(&self) -> bool {
        self.to == Timestamp::MAX
    }
}

/// The zone of a name such as `Europe/Berlin`. `None` when there is none.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The span of a window in which an instant lies. Windows shorter than an hour have no place in a
/// calendar and count as an hour.
pub fn span(window: Window, at: Timestamp, zone: &TimeZone) -> Span {
    bounds(window, at, zone).unwrap_or(Span::EVER)
}

fn bounds(window: Window, at: Timestamp, zone: &TimeZone) -> Option<Span> {
    let here = jiff::Timestamp::from_microsecond(at.micros()).ok()?.to_zoned(zone.clone());
    let (from, to) = match window {
        Window::Total => return None,
        Window::Second | Window::Minute | Window::Hour => {
            // By elapsed time, so that an hour that comes twice is two hours.
            let past = i64::from(here.minute()) * 60 + i64::from(here.second());
            let from = at.seconds() - past;
            return Some(Span { from: seconds(from), to: seconds(from + 3_600) });
        }
        Window::Day => {
            let from = here.start_of_day().ok()?;
            let to = here.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?;
            (from, to)
        }
        Window::Month => {
            let first = here.date().first_of_month();
            let next = first.checked_add(1.month()).ok()?;
            let start = |date: jiff::civil::Date| {
                date.to_datetime(Time::midnight()).to_zoned(zone.clone()).ok()
            };
            (start(first)?, start(next)?)
        }
    };
    Some(Span { from: instant(&from), to: instant(&to) })
}

const fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}

fn instant(zoned: &Zoned) -> Timestamp {
    Timestamp::from_micros(zoned.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn check(window: Window, zone_name: &str, instant: &str, from: &str, to: &str) {
        let found = span(window, at(instant), &zone(zone_name).unwrap());
        assert_eq!(found, Span { from: at(from), to: at(to) }, "{zone_name} {instant}");
    }

    #[test]
    fn a_month_ends_on_the_customers_wall() {
        check(
            Window::Month,
            "Asia/Shanghai",
            "2026-01-31T20:00:00Z",
            "2026-01-31T16:00:00Z",
            "2026-02-28T16:00:00Z",
        );
        check(
            Window::Month,
            "UTC",
            "2024-02-29T23:59:59Z",
            "2024-02-01T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_clocks_change() {
        check(
            Window::Day,
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check(
            Window::Day,
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
    }

    #[test]
    fn an_hour_begins_where_the_wall_says_so() {
        check(
            Window::Hour,
            "Asia/Kolkata",
            "2026-01-01T00:10:00Z",
            "2025-12-31T23:30:00Z",
            "2026-01-01T00:30:00Z",
        );
    }

    #[test]
    fn a_zone_that_does_not_exist_is_none() {
        assert!(zone("Mars/Olympus").is_none());
    }

    proptest! {
        #[test]
        fn spans_follow_each_other_without_gap_or_overlap(
            second in 0_i64..4_000_000_000,
            which in 0_usize..3,
            place in 0_usize..4,
        ) {
            let window = [Window::Hour, Window::Day, Window::Month][which];
            let names = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
            let zone = zone(names[place]).unwrap();
            let at = seconds(second);
            let here = span(window, at, &zone);
            prop_assert!(here.from <= at && at < here.to);
            prop_assert_eq!(span(window, here.to, &zone).from, here.to);
            let last = Timestamp::from_micros(here.to.micros() - 1);
            prop_assert_eq!(span(window, last, &zone), here);
        }
    }
}
