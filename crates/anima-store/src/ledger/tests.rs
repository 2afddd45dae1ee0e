//! Both backends, held to one contract.

mod auditor; // random operations against a model
mod conformance; // the contract, sentence by sentence
mod damage; // what verification must find
mod differential; // real databases against the one in memory
mod documented; // the queries of `docs/ledger.md`
pub(super) mod fixtures; // holds, settlements, entries
mod judging; // the queue and the halving, without a database
mod memory; // the tables as maps
mod outages; // lost databases and lost callers
mod postgres;
mod recovery; // leases, orphans, corrections
mod sim; // the protocol under a seeded simulation
mod sqlite;
mod upgrade; // calls that outlive their schema

/// The tests that every backend has. `$open` gives a [`fixtures::Books`], or `None` to skip; each
/// test ends with clean books.
macro_rules! each {
    ($open:path; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(books) = $open().await else { return };
            crate::ledger::tests::conformance::$name(&books.ledger).await;
            crate::ledger::tests::fixtures::assert_clean(&*books.ledger).await;
        }
    )*};
}

/// Every test of the suite, for a backend.
macro_rules! suite {
    ($open:path) => {
        crate::ledger::tests::each! { $open;
            a_settlement_books_both_sides
            postings_are_in_order_and_name_what_they_rest_on
            a_hold_beyond_the_balance_is_refused
            an_unknown_app_has_nothing_to_hold
            a_thousand_parallel_holds_pass_a_hundred_times_on_money_for_a_hundred
            the_same_hold_again_has_no_effect
            other_content_under_a_used_id_conflicts
            a_settlement_again_is_a_replay
            another_settlement_of_a_closed_hold_conflicts
            a_settlement_without_a_hold_is_refused
            a_release_gives_everything_back_and_posts_nothing
            a_release_still_posts_what_was_wasted
            more_than_the_hold_is_collected_down_to_the_floor
            what_was_not_collected_is_taken_back_before_anything_is_given
            a_report_of_more_takes_what_the_wallet_has_again_off_the_loss
            a_credit_limit_lets_the_wallet_go_below_zero
            a_lowered_credit_limit_refuses_new_holds_and_keeps_old_ones
            costs_may_be_in_other_currencies
            wallets_of_one_app_are_apart_by_currency
            a_topup_happens_once
            a_withdrawal_below_the_floor_is_refused
            an_entry_that_says_nothing_is_refused
            one_offender_in_a_batch_is_refused_alone
            a_hold_whose_caller_leaves_is_given_back
            a_settlement_goes_on_without_its_caller
            many_wallets_at_once_add_up
            a_sale_of_nothing_still_settles
        }
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn random_operations_agree_with_a_model() {
            crate::ledger::tests::auditor::run(|| $open()).await;
        }
    };
}

use {each, suite};
