//! Everything that goes wrong in the field, row by row: what causes it, and what has to happen then.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

mod addresses;
mod callers;
mod catalogue;
mod connecting;
mod endings;
mod greetings;
mod handshakes;
mod host_keys;
mod losses;
mod place;
mod sessions;
mod throttling;

pub(crate) use place::{Place, SOON, Server, Setting, all};

/// What goes wrong, and the test that shows what happens then: its file below `tests/tests/`, its
/// name. `catalogue.rs` sees to it that this is true.
pub(crate) const CATALOGUE: &[(&str, &str, &str)] = &[
    (
        "connect black-holed",
        "faults/connecting.rs",
        "a_host_that_swallows_every_packet_costs_one_connect_timeout_that_all_who_wait_share",
    ),
    (
        "connection refused",
        "faults/connecting.rs",
        "a_closed_port_is_an_error_at_once_and_backs_off",
    ),
    (
        "hangs up at once",
        "faults/connecting.rs",
        "a_server_that_accepts_and_hangs_up_is_told_from_one_that_refuses",
    ),
    (
        "a name with two addresses",
        "faults/addresses.rs",
        "forty_commands_on_a_name_with_two_addresses_run_on_one_machine_and_the_output_says_which",
    ),
    (
        "a name that moves to another address",
        "faults/addresses.rs",
        "a_name_that_moves_while_commands_run_is_a_replacement_that_loses_no_command",
    ),
    (
        "a name with two addresses, one of them black-holed",
        "faults/addresses.rs",
        "an_address_that_swallows_packets_costs_a_moment_and_no_share_of_the_connect_time",
    ),
    (
        "a name with two addresses, one of them down",
        "faults/addresses.rs",
        "a_machine_that_is_gone_gives_way_to_the_other_address_with_an_event",
    ),
    (
        "a name with two addresses, both refused",
        "faults/addresses.rs",
        "an_address_that_refuses_costs_nothing_and_the_error_names_all_that_were_tried",
    ),
    (
        "accepted, no banner",
        "faults/connecting.rs",
        "a_server_that_accepts_and_says_nothing_costs_the_connect_timeout_and_its_socket",
    ),
    (
        "late banner",
        "faults/connecting.rs",
        "a_banner_that_comes_late_is_waited_for_within_the_connect_timeout",
    ),
    (
        "not an SSH server",
        "faults/connecting.rs",
        "something_else_than_ssh_is_told_apart_and_shown_and_not_asked_again",
    ),
    (
        "text line instead of a banner",
        "faults/throttling.rs",
        "a_server_that_says_it_has_too_many_is_tried_again_after_growing_pauses",
    ),
    (
        "text line instead of a banner, for ever",
        "faults/throttling.rs",
        "a_server_that_does_not_relent_is_named_when_the_deadline_passes",
    ),
    (
        "text line instead of a banner, sshd's own, in a burst",
        "faults/throttling.rs",
        "a_burst_on_an_sshd_that_takes_one_handshake_at_a_time_completes",
    ),
    (
        "preamble lines before the banner",
        "faults/connecting.rs",
        "lines_before_the_banner_are_accepted",
    ),
    (
        "many or long lines before the banner",
        "faults/greetings.rs",
        "lines_before_the_identification_are_read_as_far_as_ssh_reads_them",
    ),
    (
        "another version of the protocol",
        "faults/greetings.rs",
        "another_version_of_the_protocol_is_refused_at_once",
    ),
    (
        "another protocol that waits",
        "faults/greetings.rs",
        "of_a_server_that_says_something_else_and_waits_the_words_are_shown",
    ),
    (
        "banner, then silence",
        "faults/connecting.rs",
        "a_server_that_stalls_in_key_exchange_costs_the_connect_timeout_and_its_socket",
    ),
    (
        "reset or FIN in key exchange",
        "faults/handshakes.rs",
        "a_connection_lost_anywhere_in_its_handshake_is_dialled_again",
    ),
    (
        "reset or FIN in key exchange, for ever",
        "faults/handshakes.rs",
        "handshakes_that_are_lost_for_ever_end_with_the_callers_deadline",
    ),
    (
        "reset or FIN while a command runs",
        "faults/losses.rs",
        "a_connection_cut_under_a_command_is_unknown_for_that_one_and_the_next_redials",
    ),
    (
        "network frozen while a command runs",
        "liveness/frozen.rs",
        "a_frozen_network_fails_everything_on_its_connection_together_and_in_time",
    ),
    (
        "2 s outage",
        "liveness/frozen.rs",
        "an_outage_of_two_seconds_fails_nothing",
    ),
    (
        "connection silently dropped while idle (NAT)",
        "liveness/quiet.rs",
        "a_connection_that_was_silently_dropped_while_it_was_idle_is_replaced_and_nobody_notices",
    ),
    (
        "sshd's child stopped",
        "liveness/ended.rs",
        "a_server_process_that_is_stopped_is_found_by_keepalive",
    ),
    (
        "sshd's child killed",
        "liveness/ended.rs",
        "a_server_process_that_is_killed_is_noticed_at_once",
    ),
    (
        "sshd restarted",
        "faults/losses.rs",
        "a_restart_of_sshd_costs_the_command_that_ran_and_no_other",
    ),
    (
        "more commands than MaxSessions × connections",
        "faults/sessions.rs",
        "more_commands_than_there_are_sessions_queue_and_none_fails",
    ),
    (
        "slot released late",
        "faults/sessions.rs",
        "slots_that_are_released_late_are_absorbed_and_the_learned_limit_does_not_sink",
    ),
    (
        "MaxSessions 0 (no shell at all)",
        "faults/sessions.rs",
        "a_server_that_allows_no_session_is_an_error_at_once_that_says_so",
    ),
    (
        "one session per server",
        "faults/sessions.rs",
        "a_server_that_allows_one_session_serves_one_at_a_time_and_gets_no_spare",
    ),
    (
        "cancelled command whose process lives on",
        "faults/sessions.rs",
        "a_cancelled_command_is_signalled_and_counts_until_it_is_gone_and_others_go_elsewhere",
    ),
    (
        "wrong key",
        "logins/cooldown.rs",
        "a_hundred_callers_with_a_wrong_key_make_one_login_a_cool_down_and_nobody_bans_them",
    ),
    (
        "eight agent keys with MaxAuthTries 6",
        "logins/agents.rs",
        "of_an_agents_many_keys_no_more_are_offered_than_the_server_counts",
    ),
    (
        "host key changed or unknown",
        "faults/host_keys.rs",
        "a_changed_or_unknown_host_key_is_refused_once_for_everybody_and_never_trusted",
    ),
    (
        "closed without exit status",
        "faults/endings.rs",
        "a_channel_that_the_server_closes_without_a_status_is_no_success",
    ),
    (
        "killed by a signal",
        "faults/endings.rs",
        "a_command_ended_by_a_signal_says_which",
    ),
    (
        "future dropped at any await",
        "faults/callers.rs",
        "a_command_dropped_at_any_await_leaks_no_place_no_slot_and_no_dial",
    ),
    (
        "future dropped in the middle of a dial that stalls",
        "faults/callers.rs",
        "a_dial_that_nobody_waits_for_any_more_leaves_no_socket_either",
    ),
    (
        "30 callers, cold host, the first one cancelled",
        "faults/callers.rs",
        "of_thirty_callers_on_a_cold_host_the_first_is_dropped_and_one_dial_serves_the_others",
    ),
    (
        "reader stalls, stdin unread",
        "streams/neighbours.rs",
        "stalled_streams_do_not_slow_five_hundred_commands_and_lose_no_byte",
    ),
    (
        "file descriptors exhausted",
        "descriptors.rs",
        "want_of_descriptors_is_waited_for_told_as_that_and_passes_with_it",
    ),
    (
        "close() under load",
        "closing.rs",
        "closing_under_load_lets_all_that_runs_finish_and_nothing_survives",
    ),
    (
        "process forked or machine suspended",
        "liveness/stopped.rs",
        "a_process_that_was_stopped_for_long_loses_no_command_and_runs_the_next_one",
    ),
];
