//! The query of `usage`, once for each database: they differ in how a time and a document are read.
//!
//! It begins with the wallets and takes their calls of the period by `hold_spend`; everything else
//! is found by keys that begin with the call's id. Rows come in the order of their line's key, so
//! that a page is the first of those after the last page's. Invariant: codes are compared byte by
//! byte, whatever the database's collation.

use super::Span;

/// Columns after the seven of the key: which part of a line, which meter, and up to eight sums.
pub(super) const PART: usize = 7;
pub(super) const METER: usize = 8;
pub(super) const FIRST_SUM: usize = 9;

/// Parts of a line; what is none of them is a meter's.
pub(super) const LEGS: i64 = 1;
pub(super) const CALLS: i64 = 2;
pub(super) const ATTEMPTS: i64 = 3;

/// A line has a row for each part and each meter, of which there are 24; names that an older or a
/// newer version wrote may come on top.
pub(super) const ROWS_OF_LINE: u32 = 64;

/// For the transaction: compiling the query takes a PostgreSQL two seconds, more than it saves.
pub(super) const INTERPRETED: &str = "SELECT set_config('jit', 'off', true)";

/// The first call of all wallets, or of one, from an instant on: one look into the index for each.
pub(super) const FIRST_CALL: &str = "
    SELECT min(began.at) FROM (
        SELECT (SELECT min(h.created_at) FROM hold h
                WHERE h.account_id = w.id AND h.created_at >= $1) AS at
        FROM account w WHERE w.class = 2010 AND ($2 = '' OR w.code = $2)
    ) AS began";

/// How the start of a span is written, for the function that writes it.
pub(super) const fn shape(span: Option<Span>, is_postgres: bool) -> &'static str {
    match (span, is_postgres) {
        (None, _) => "",
        (Some(Span::Hour), true) => "YYYY-MM-DD\"T\"HH24:00:00\"Z\"",
        (Some(Span::Hour), false) => "%Y-%m-%dT%H:00:00Z",
        (Some(Span::Day), true) => "YYYY-MM-DD",
        (Some(Span::Day), false) => "%Y-%m-%d",
        (Some(Span::Month), true) => "YYYY-MM",
        (Some(Span::Month), false) => "%Y-%m",
    }
}

/// A sum over legs, as text, for it may be wider than 64 bits: what credits of the class add and
/// debits of it take away.
macro_rules! credited {
    ($classes:literal) => {
        concat!(
            "CAST(sum(CASE WHEN s.class IN (",
            $classes,
            ") THEN l.amount ELSE 0 END - CASE WHEN d.class IN (",
            $classes,
            ") THEN l.amount ELSE 0 END) AS TEXT)"
        )
    };
}

/// The other way round, of the legs that are asked for.
macro_rules! debited {
    ($classes:literal, $which:literal) => {
        concat!(
            "CAST(sum(CASE WHEN d.class IN (",
            $classes,
            ") AND ",
            $which,
            " THEN l.amount ELSE 0 END - CASE WHEN s.class IN (",
            $classes,
            ") AND ",
            $which,
            " THEN l.amount ELSE 0 END) AS TEXT)"
        )
    };
}

macro_rules! counted {
    ($which:literal) => {
        concat!("CAST(sum(CASE WHEN ", $which, " THEN 1 ELSE 0 END) AS TEXT)")
    };
}

/// A meter's sum over upstream calls.
macro_rules! metered {
    ($which:literal) => {
        concat!("CAST(sum(CASE WHEN ", $which, " THEN CAST(u.value AS bigint) ELSE 0 END) AS TEXT)")
    };
}

/// A line's key, in each part: of the call, and of the attempt `t` that it counts for.
macro_rules! key {
    ($call:literal, $currency:literal) => {
        concat!(
            $call,
            ".span, COALESCE(t.channel, '') AS channel, COALESCE(t.model, '') AS model, ",
            $call,
            ".alias, ",
            $call,
            ".app, ",
            $call,
            ".kid, ",
            $currency,
            " AS currency, "
        )
    };
}

/// The calls, what each tried, and which try counts for it: the last that answered, else the last.
/// Of an attempt what was learnt last counts, but a cost that was told alone tells no usage. Each
/// is made once: left to itself, SQLite makes it again for every part. `CROSS JOIN` holds SQLite to
/// the order of the tables.
macro_rules! calls {
    ($span:literal) => {
        concat!(
            "WITH call AS MATERIALIZED (
                SELECT h.id, h.state, h.currency, ",
            $span,
            " AS span,
                       CASE WHEN $2 THEN h.alias ELSE '' END AS alias,
                       CASE WHEN $3 THEN h.app ELSE '' END AS app,
                       CASE WHEN $4 THEN h.kid ELSE '' END AS kid
                FROM account w CROSS JOIN hold h
                WHERE w.class = 2010 AND ($5 = '' OR w.code = $5) AND h.account_id = w.id
                  AND h.created_at >= $6 AND h.created_at < $7
                  AND ($8 = '' OR h.kid = $8) AND ($9 = '' OR h.alias = $9)
            ), tried AS MATERIALIZED (
                SELECT c.id, c.currency, c.span, c.alias, c.app, c.kid, a.n,
                       CASE WHEN $10 THEN a.channel ELSE '' END AS channel,
                       CASE WHEN $11 THEN a.model ELSE '' END AS model,
                       ($12 = '' OR a.channel = $12) AND ($13 = '' OR a.model = $13) AS wanted,
                       COALESCE(k.served, a.served) AS served,
                       COALESCE(k.usage_source, a.usage_source) AS source,
                       COALESCE(k.usage, a.usage) AS usage
                FROM call c
                CROSS JOIN attempt a
                LEFT JOIN corrected_attempt k ON k.hold = a.hold AND k.n = a.n AND k.seq = (
                    SELECT max(m.seq) FROM corrected_attempt m
                    WHERE m.hold = a.hold AND m.n = a.n
                      AND NOT (m.usage_source = 'none' AND m.cost IS NOT NULL))
                WHERE a.hold = c.id
            ), home AS MATERIALIZED (
                SELECT id, COALESCE(max(CASE WHEN served THEN n END), max(n)) AS n,
                       max(CASE WHEN served THEN 1 ELSE 0 END) AS answered
                FROM tried GROUP BY id
            )"
        )
    };
}

macro_rules! legs {
    () => {
        concat!(
            "SELECT ",
            key!("c", "l.currency"),
            "1 AS part, '' AS meter, ",
            debited!("2010, 2020", "l.component <> 5"),
            " AS a0, ",
            debited!("4020", "l.component = 5"),
            " AS a1, ",
            credited!("4010"),
            " AS a2, ",
            debited!("5030", "l.component = 11"),
            " AS a3, ",
            credited!("5070"),
            " AS a4, ",
            debited!("5010, 5020, 5030", "l.component <> 11"),
            " AS a5, ",
            credited!("2031"),
            " AS a6, ",
            debited!("5020, 5030", "l.component <> 11"),
            " AS a7
            FROM call c
            CROSS JOIN journal j
            CROSS JOIN leg l
            JOIN account d ON d.id = l.debit_id
            JOIN account s ON s.id = l.credit_id
            LEFT JOIN home o ON o.id = c.id
            LEFT JOIN tried t ON t.id = c.id AND t.n = COALESCE(l.attempt, o.n)
            WHERE j.subject = c.id AND l.journal = j.id
                AND COALESCE(t.wanted, $12 = '' AND $13 = '')
            GROUP BY 1, 2, 3, 4, 5, 6, 7"
        )
    };
}

macro_rules! ended {
    () => {
        concat!(
            "SELECT ",
            key!("c", "c.currency"),
            "2, '', ",
            counted!("c.state IN ('SETTLED', 'RELEASED')"),
            ", ",
            counted!("c.state = 'RELEASED' AND COALESCE(o.answered, 0) = 0"),
            ", ",
            counted!("c.state NOT IN ('SETTLED', 'RELEASED')"),
            ", '', '', '', '', ''
            FROM call c
            LEFT JOIN home o ON o.id = c.id
            LEFT JOIN tried t ON t.id = c.id AND t.n = o.n
            WHERE COALESCE(t.wanted, $12 = '' AND $13 = '')
            GROUP BY 1, 2, 3, 4, 5, 6, 7"
        )
    };
}

macro_rules! attempts {
    () => {
        concat!(
            "SELECT ",
            key!("t", "t.currency"),
            "3, '', CAST(count(*) AS TEXT), ",
            counted!("NOT t.served"),
            ", ",
            counted!("t.source = 'counted'"),
            ", '', '', '', '', ''
            FROM tried t
            WHERE t.wanted
            GROUP BY 1, 2, 3, 4, 5, 6, 7"
        )
    };
}

macro_rules! meters {
    ($meters:literal) => {
        concat!(
            "SELECT ",
            key!("t", "t.currency"),
            "4, u.key, ",
            metered!("t.served"),
            ", ",
            metered!("t.served AND t.source = 'counted'"),
            ", ",
            metered!("NOT t.served"),
            ", '', '', '', '', ''
            FROM tried t CROSS JOIN ",
            $meters,
            "
            WHERE t.wanted
            GROUP BY 1, 2, 3, 4, 5, 6, 7, u.key"
        )
    };
}

/// `$bytes` has codes compared byte by byte, `$meters` reads a document of meters as `u`.
macro_rules! usage_text {
    ($span:literal, $bytes:literal, $meters:literal) => {
        concat!(
            calls!($span),
            "SELECT span, channel, model, alias, app, kid, currency, part, meter,
                    a0, a1, a2, a3, a4, a5, a6, a7
            FROM (
                SELECT span",
            $bytes,
            " AS span, channel",
            $bytes,
            " AS channel, model",
            $bytes,
            " AS model, alias",
            $bytes,
            " AS alias, app",
            $bytes,
            " AS app, kid",
            $bytes,
            " AS kid, currency",
            $bytes,
            " AS currency, part, meter, a0, a1, a2, a3, a4, a5, a6, a7
                FROM (",
            legs!(),
            " UNION ALL ",
            ended!(),
            " UNION ALL ",
            attempts!(),
            " UNION ALL ",
            meters!($meters),
            ") AS every_part
            ) AS part_of_line
            WHERE (span, channel, model, alias, app, kid, currency)
                > ($14, $15, $16, $17, $18, $19, $20)
            ORDER BY span, channel, model, alias, app, kid, currency, part, meter
            LIMIT $21"
        )
    };
}

pub(super) const SQLITE: &str =
    usage_text!("strftime($1, h.created_at / 1000000, 'unixepoch')", "", "json_each(t.usage) AS u");

pub(super) const POSTGRES: &str = usage_text!(
    "COALESCE(to_char(to_timestamp(h.created_at / 1000000) AT TIME ZONE 'UTC', $1), '')",
    " COLLATE \"C\"",
    "jsonb_each_text(t.usage) AS u(key, value)"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::database::{self, Location};
    use crate::ledger::tests::fixtures;

    #[tokio::test]
    async fn calls_are_found_by_their_wallets_and_nothing_else_is_read_whole() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.db");
        let location = Location::Sqlite(file.clone());
        drop(database::open(&location, &fixtures::opener()).await.unwrap());
        let connection = rusqlite::Connection::open(file).unwrap();
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {SQLITE}")).unwrap();
        let steps = explained.raw_query().mapped(|row| row.get::<_, String>(3));
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        let found = [
            "SEARCH h USING INDEX hold_spend (account_id=? AND created_at>? AND created_at<?)",
            "SEARCH a USING PRIMARY KEY (hold=?)",
            "SEARCH j USING INDEX sqlite_autoindex_journal_2 (subject=?)",
            "SEARCH l USING PRIMARY KEY (journal=?)",
        ];
        for step in found {
            assert!(steps.iter().any(|s| s == step), "{step}: {steps:#?}");
        }
        let made = ["c", "t", "tried", "every_part"];
        let of = |step: &&String| step.split(' ').nth(1).unwrap().to_owned();
        let scanned: BTreeSet<_> =
            steps.iter().filter(|step| step.starts_with("SCAN")).map(|step| of(&step)).collect();
        let tables: Vec<_> = scanned.iter().filter(|name| !made.contains(&name.as_str())).collect();
        assert_eq!(tables, ["u", "w"], "a document of meters, and the accounts: {steps:#?}");
    }
}
