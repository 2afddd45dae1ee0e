//! Movements and reports, on both backends through [`Stores`], as the program has them.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;

use super::{Grant, Money, Period, Refund};
use crate::database::{self, Location, Stores};
use crate::ledger::tests::fixtures::{self, NOON, assert_clean};
use crate::ledger::{Auditor, LedgerStore};
use crate::quota::Spend;

mod crashes; // between any two writes
mod credit; // promotional credit
mod exchange; // conversions
mod late; // what is sold after its hold was released
mod refunds; // refunds
mod reports; // statements, payables, margins
mod turns; // who looks at all books
mod usage; // what calls used

/// Both halves of the books.
pub(super) struct Desk {
    pub(super) ledger: Arc<dyn LedgerStore>,
    pub(super) money: Arc<dyn Money>,
    pub(super) auditor: Arc<dyn Auditor>,
    pub(super) spend: Arc<dyn Spend>,
}

impl From<Stores> for Desk {
    fn from(stores: Stores) -> Self {
        let Stores { ledger, money, auditor, spend, .. } = stores;
        Self { ledger, money, auditor, spend }
    }
}

/// A rule, under a name that `on_both` can print. Each ends with clean books.
async fn on_sqlite<F: Future<Output = ()>>(rule: impl FnOnce(Arc<Desk>) -> F) {
    let place = tempfile::tempdir().unwrap();
    let location = Location::Sqlite(place.path().join("a.db"));
    hold_to(&location, rule).await;
}

async fn on_postgres<F: Future<Output = ()>>(rule: impl FnOnce(Arc<Desk>) -> F) {
    let Some(scratch) = crate::tests::postgres().await else { return };
    hold_to(&Location::Postgres(scratch.url()), rule).await;
}

async fn hold_to<F: Future<Output = ()>>(location: &Location, rule: impl FnOnce(Arc<Desk>) -> F) {
    let stores = database::open(location, &fixtures::opener()).await.unwrap();
    let desk = Arc::new(Desk::from(stores));
    rule(Arc::clone(&desk)).await;
    assert_clean(&*desk.ledger).await;
}

macro_rules! on_both {
    ($($rules:ident::$rule:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::on_sqlite(super::$rules::$rule).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::on_postgres(super::$rules::$rule).await;
            })*
        }
    };
}

on_both! {
    refunds::a_refund_gives_back_in_parts_and_never_more_than_was_charged,
    refunds::a_refund_happens_once_per_key,
    refunds::many_refunds_at_once_never_give_back_more_than_all,
    refunds::only_a_settled_request_of_the_app_is_refunded,
    refunds::a_correction_counts_against_what_is_left_to_refund,
    refunds::a_late_charge_can_be_refunded_and_is_not_taken_back,
    refunds::what_a_correction_sold_of_a_released_hold_can_be_refunded,
    credit::credit_is_used_before_money_and_the_first_to_expire_first,
    credit::a_hold_may_use_credit_and_money_together_and_never_more,
    credit::parallel_holds_never_pass_on_more_than_money_and_credit,
    credit::a_grant_happens_once,
    credit::expired_credit_is_for_no_new_call_and_is_posted_back_once,
    credit::what_open_calls_reserved_expires_after_them,
    credit::sold_credit_that_expires_is_income,
    credit::a_refund_gives_credit_back_to_its_grant,
    credit::a_correction_gives_credit_back_to_its_grant,
    credit::what_is_charged_later_is_taken_of_credit_first,
    credit::credit_cannot_be_withdrawn,
    credit::an_extension_may_use_credit,
    exchange::a_sale_is_converted_through_the_position_in_one_journal,
    exchange::what_cannot_be_collected_is_converted_in_proportion,
    exchange::a_conversion_with_credit_is_settled_once,
    exchange::a_correction_upward_is_converted_too,
    late::what_was_sold_late_is_sold_and_spent,
    late::a_conversion_that_was_sold_late_is_spent_once,
    reports::a_statement_adds_up_and_months_follow_one_another,
    reports::a_statement_of_nobody_is_empty,
    reports::payables_are_apart_by_confirmation_and_currency,
    reports::a_report_confirms_the_attempts_that_it_names,
    reports::an_invoice_is_compared_with_all_that_its_day_cost,
    reports::a_bill_may_be_rounded_to_the_smallest_coin,
    reports::a_margin_is_what_is_left_of_the_sale,
    usage::every_amount_is_what_the_accounts_say,
    usage::a_line_is_of_its_own_calls_however_they_are_kept_apart,
    usage::a_correction_and_a_refund_change_the_hour_of_their_call,
    usage::what_was_learnt_last_of_an_attempt_counts,
    usage::a_period_is_half_open,
    usage::spans_are_those_of_utc,
    usage::a_filter_leaves_what_a_line_of_its_own_would_show,
    usage::pages_follow_one_another_whatever_their_size,
    turns::one_node_at_a_time_has_the_turn,
    turns::a_look_is_read_by_every_node,
    reports::the_trial_balance_of_an_earlier_instant_leaves_out_what_came_later,
}

/// All of an app's money, credit, and what is held.
async fn wallet(desk: &Desk, app: &str) -> (i64, i64, i64) {
    let (posted, held, _) = fixtures::wallet(&*desk.ledger, app).await;
    let grants = desk.money.grants(app, Currency::USD).await.unwrap();
    (posted, grants.iter().map(super::GrantState::left).sum(), held)
}

fn refund(n: u128, app: &str, amount: Option<i64>, key: u128) -> Refund {
    Refund {
        request: Uuid::from_u128(n),
        app: app.into(),
        currency: Currency::USD,
        amount,
        key: Uuid::from_u128(key),
        reference: "case 12".to_owned(),
        at: NOON,
    }
}

/// Credit that expires so many hours after noon.
fn grant(n: u128, app: &str, amount: i64, hours: i64) -> Grant {
    Grant {
        id: Uuid::from_u128(n),
        app: app.into(),
        currency: Currency::USD,
        amount,
        sold: false,
        expires_at: NOON.plus_millis(hours * 3_600_000),
        reference: "welcome".to_owned(),
        at: NOON.plus_millis(-3_600_000),
    }
}

/// A settled request.
async fn settled(desk: &Desk, n: u128, app: &str, sale: i64) {
    let hold = fixtures::hold(n, app, sale);
    desk.ledger.hold(hold.clone()).await.unwrap();
    desk.ledger.settle(fixtures::settle(&hold, sale)).await.unwrap();
}

/// From an hour before now to an hour after it, by the database's clock, which posts.
#[expect(clippy::disallowed_methods, reason = "the database posts by its own clock")]
fn around_now() -> Period {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap());
    Period {
        app: "acme".into(),
        currency: Currency::USD,
        from: now.plus_millis(-3_600_000),
        to: now.plus_millis(3_600_000),
    }
}
