//! The judgement: books against the provider's truth and against what clients saw.
//!
//! Request by request. What a policy allows is no finding: an estimate where the provider did not
//! report, a sale of 0 for an orphan, a cost in the exposure account. Source: `reliability` 1.6.
//! Invariant: every call in the truth log, every row in the books and every answer is looked at.

mod case;
mod once;

use std::collections::{BTreeMap, BTreeSet};

use anima_simulator::Call;
use anyhow::{Context, Result};

use crate::books::{Books, Hold, Leg};
use crate::load::Seen;
use crate::money::{self, COST};
use crate::operator::{APPS, CREDIT};
use case::Case;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// The provider worked or the client was answered, and the books do not know.
    Lost,
    /// Sold or paid more than once.
    Double,
    /// In the books, and never at the provider.
    Phantom,
    /// Another amount than usage at its price.
    Wrong,
    /// Its hold is still open.
    Unresolved,
}

impl Class {
    pub(crate) const ALL: [Self; 5] =
        [Self::Lost, Self::Double, Self::Phantom, Self::Wrong, Self::Unresolved];

    /// For tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Double => "double",
            Self::Phantom => "phantom",
            Self::Wrong => "wrong",
            Self::Unresolved => "unresolved",
        }
    }
}

/// One finding.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) class: Class,
    pub(crate) request: String,
    pub(crate) what: String,
}

/// What the comparison came to.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) findings: Vec<Finding>,
    pub(crate) requests: usize,
    pub(crate) upstream_calls: usize,
    /// Answers that clients got whole.
    pub(crate) answers: usize,
    /// Closed holds by their state and where their usage came from.
    pub(crate) resolved: BTreeMap<String, usize>,
    /// In nano-dollars: what the provider bills, and what the books say that it does, exactly and
    /// by estimate.
    pub(crate) billed: i64,
    pub(crate) booked: i64,
    pub(crate) estimated: i64,
    /// What was sold and no wallet covered.
    pub(crate) unpaid: i64,
    /// Orphans for which a cost was estimated and no call had been sent: what the policy says where
    /// a provider cannot be asked, and no phantom.
    pub(crate) cautious: usize,
    /// What the provider bills for calls whose holds are open.
    pub(crate) open_exposure: i64,
    /// Wallets whose balance is not what came in less what was sold.
    pub(crate) bank: Vec<String>,
    /// What was done under idempotency keys.
    pub(crate) once: once::Figures,
    /// Answers that nobody pays for, since another node had closed the hold by then, and another
    /// call had taken their key over.
    pub(crate) given_away: usize,
}

impl Audit {
    /// Requests of a class; a request counts once in each.
    pub(crate) fn count(&self, class: Class) -> usize {
        let of = self.findings.iter().filter(|finding| finding.class == class);
        of.map(|finding| &finding.request).collect::<BTreeSet<_>>().len()
    }
}

/// Compares.
///
/// # Errors
/// When an amount does not fit.
pub(crate) fn audit(books: &Books, truth: &[Call], seen: &[Seen]) -> Result<Audit> {
    audit_of(&APPS, books, truth, seen)
}

/// Compares, where these apps got their credit.
///
/// # Errors
/// As before.
pub(crate) fn audit_of(
    apps: &[&str],
    books: &Books,
    truth: &[Call],
    seen: &[Seen],
) -> Result<Audit> {
    let mut audit = Audit { upstream_calls: truth.len(), ..Audit::default() };
    let cases = gather(books, truth, seen)?;
    audit.requests = cases.len();
    audit.answers = seen.iter().filter(|seen| seen.complete).count();
    for (id, case) in &cases {
        let found = case.judge()?.into_iter();
        audit.findings.extend(found.map(|(class, what)| Finding {
            class,
            request: (*id).to_owned(),
            what,
        }));
        add_up(&mut audit, case)?;
    }
    let (figures, found) = once::judge(&cases, seen);
    audit.once = figures;
    audit.findings.extend(found);
    audit.bank = bank(apps, books)?;
    Ok(audit)
}

/// Every request that anybody knows of.
fn gather<'a>(
    books: &'a Books,
    truth: &'a [Call],
    seen: &'a [Seen],
) -> Result<BTreeMap<&'a str, Case<'a>>> {
    let mut cases: BTreeMap<&str, Case<'a>> = BTreeMap::new();
    for call in truth {
        let id = call.request_id.as_deref().context("an upstream call without a request id")?;
        let number = call.attempt_id.as_deref().and_then(|id| id.rsplit_once('-'));
        let number = number.context("an upstream call without an attempt id")?.1.parse()?;
        cases.entry(id).or_default().calls.push((number, call));
    }
    let kids = seen.iter().filter_map(|seen| Some(seen.once.as_ref()?.under.kid.as_str()));
    let kids: BTreeSet<&str> = kids.collect();
    for (id, hold) in &books.holds {
        let case = cases.entry(id).or_default();
        case.hold = Some(hold);
        case.is_taken_over = kids.contains(hold.kid.as_str()) && !books.keyed.contains(id);
    }
    for (id, attempts) in &books.attempts {
        cases.entry(id).or_default().attempts = Some(attempts);
    }
    // Top-ups explain themselves, not a request.
    let of_requests = books.legs.iter().filter(|(_, legs)| !legs.iter().any(is_top_up));
    for (id, legs) in of_requests {
        cases.entry(id).or_default().legs = legs;
    }
    for (seen, id) in seen.iter().filter_map(|seen| Some((seen, told_of(seen)?))) {
        let case = cases.entry(id).or_default();
        // Of those who asked under one key, whoever has all of it.
        if case.seen.is_none_or(|earlier| !earlier.complete) {
            case.seen = Some(seen);
        }
    }
    Ok(cases)
}

/// The request that a client was told of: a stored answer is of the one that was made.
fn told_of(seen: &Seen) -> Option<&str> {
    let original = seen.once.as_ref().and_then(|told| told.original.as_deref());
    original.or(seen.request_id.as_deref())
}

fn is_top_up(leg: &Leg) -> bool {
    leg.debit == CLEARING
}

/// Where top-ups come from.
const CLEARING: &str = "psp_clearing";

fn add_up(audit: &mut Audit, case: &Case<'_>) -> Result<()> {
    let open = case.hold.is_some_and(Hold::is_open);
    for (_, call) in &case.calls {
        let owed = money::owed(&COST, &call.billed)?;
        audit.billed += owed;
        audit.open_exposure += if open { owed } else { 0 };
    }
    for (exact, estimated) in case.legs.iter().map(Leg::owed) {
        audit.booked += exact;
        audit.estimated += estimated;
    }
    audit.unpaid += case.legs.iter().filter_map(Leg::unpaid).sum::<i64>();
    audit.cautious += usize::from(case.is_cautious());
    audit.given_away += usize::from(case.is_given_away());
    if let Some(hold) = case.hold {
        let last = case.attempts.and_then(|all| all.values().next_back());
        let source = last.map_or("no attempt", |attempt| attempt.source.as_str());
        *audit.resolved.entry(format!("{}, {source}", hold.state.to_lowercase())).or_default() += 1;
    }
    Ok(())
}

/// Top-ups less sales is what each wallet has, and what wallets lack and what none of them covered
/// is what we sold.
fn bank(apps: &[&str], books: &Books) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut paid = 0;
    for app in apps {
        let wallet = format!("wallet:{app}");
        let legs = books.legs.values().flatten();
        let of_wallet = legs.filter(|leg| leg.debit == wallet || leg.credit == wallet);
        let sold: i64 = of_wallet.filter_map(Leg::sold).sum();
        let left = money::nano(CREDIT)? - sold;
        let (posted, _) = books.wallets.get(&wallet).copied().unwrap_or_default();
        paid += money::nano(CREDIT)? - posted;
        if posted != left {
            let (posted, left) = (money::dollars(posted), money::dollars(left));
            wrong.push(format!("{wallet} has {posted}; {CREDIT} less its sales is {left}"));
        }
    }
    let unpaid: i64 = books.legs.values().flatten().filter_map(Leg::unpaid).sum();
    let earned: i64 = books.legs.values().flatten().map(Leg::earned).sum();
    if earned != paid + unpaid {
        let [earned, paid, unpaid] = [earned, paid, unpaid].map(money::dollars);
        wrong.push(format!("sold are {earned}; wallets paid {paid}, and none covered {unpaid}"));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests;
