%% The fixed set of names that the agent uses on a node: modules, registered names. Nothing else is ever made up,
%% so no trace and no session adds an atom.
-module(beamtrace_names).

-export([runtime/0]).
-export([modules/0, is_agent_module/1, is_agent_process/1, processes/0, holders/0, slots/0, md5/0]).

-define(MODULES, [
    beamtrace_agent,
    beamtrace_alarms,
    beamtrace_births,
    beamtrace_budget,
    beamtrace_contents,
    beamtrace_cost,
    beamtrace_event,
    beamtrace_exec,
    beamtrace_janitor,
    beamtrace_limits,
    beamtrace_names,
    beamtrace_native,
    beamtrace_native_check,
    beamtrace_native_loader,
    beamtrace_outbox,
    beamtrace_pacer,
    beamtrace_patterns,
    beamtrace_recorder,
    beamtrace_rings,
    beamtrace_runtime,
    beamtrace_sample,
    beamtrace_sampling,
    beamtrace_session,
    beamtrace_shape,
    beamtrace_spec,
    beamtrace_targets,
    beamtrace_trace_start,
    beamtrace_tracer,
    beamtrace_traces,
    beamtrace_trim,
    beamtrace_window
]).

-spec modules() -> [module()].
modules() -> ?MODULES.

-spec is_agent_module(term()) -> boolean().
is_agent_module(Module) -> lists:member(Module, ?MODULES).

%% A process of any session on this node.
-spec is_agent_process(pid()) -> boolean().
is_agent_process(Pid) when node(Pid) =:= node() ->
    case process_info(Pid, initial_call) of
        {initial_call, {Module, _, _}} -> is_agent_module(Module);
        undefined -> false
    end;
is_agent_process(_) ->
    false.

%% Processes of all sessions on this node, but for short-lived ones.
-spec processes() -> #{pid() => true}.
processes() ->
    Named = [Pid || {Holder, Janitor} <- slots(), Name <- [Holder, Janitor], Pid <- [whereis(Name)], is_pid(Pid)],
    Linked = [Pid || Holder <- Named, {links, Links} <- [process_info(Holder, links)], Pid <- Links, is_pid(Pid)],
    maps:from_keys(Named ++ Linked, true).

%% Identifies the agent's code as a whole.
-spec md5() -> binary().
md5() -> erlang:md5([Module:module_info(md5) || Module <- ?MODULES]).

%% Holders that are running on this node.
-spec holders() -> [pid()].
holders() ->
    [Pid || {Holder, _} <- slots(), Pid <- [whereis(Holder)], is_pid(Pid)].

%% The process that has the runtime of instrumented code.
-spec runtime() -> atom().
runtime() -> beamtrace_runtime.

%% Names of a holder and of its janitor.
-spec slots() -> [{atom(), atom()}].
slots() ->
    [
        {beamtrace_1, beamtrace_janitor_1},
        {beamtrace_2, beamtrace_janitor_2},
        {beamtrace_3, beamtrace_janitor_3},
        {beamtrace_4, beamtrace_janitor_4},
        {beamtrace_5, beamtrace_janitor_5},
        {beamtrace_6, beamtrace_janitor_6},
        {beamtrace_7, beamtrace_janitor_7},
        {beamtrace_8, beamtrace_janitor_8},
        {beamtrace_9, beamtrace_janitor_9},
        {beamtrace_10, beamtrace_janitor_10},
        {beamtrace_11, beamtrace_janitor_11},
        {beamtrace_12, beamtrace_janitor_12},
        {beamtrace_13, beamtrace_janitor_13},
        {beamtrace_14, beamtrace_janitor_14},
        {beamtrace_15, beamtrace_janitor_15},
        {beamtrace_16, beamtrace_janitor_16},
        {beamtrace_17, beamtrace_janitor_17},
        {beamtrace_18, beamtrace_janitor_18},
        {beamtrace_19, beamtrace_janitor_19},
        {beamtrace_20, beamtrace_janitor_20},
        {beamtrace_21, beamtrace_janitor_21},
        {beamtrace_22, beamtrace_janitor_22},
        {beamtrace_23, beamtrace_janitor_23},
        {beamtrace_24, beamtrace_janitor_24},
        {beamtrace_25, beamtrace_janitor_25},
        {beamtrace_26, beamtrace_janitor_26},
        {beamtrace_27, beamtrace_janitor_27},
        {beamtrace_28, beamtrace_janitor_28},
        {beamtrace_29, beamtrace_janitor_29},
        {beamtrace_30, beamtrace_janitor_30},
        {beamtrace_31, beamtrace_janitor_31},
        {beamtrace_32, beamtrace_janitor_32},
        {beamtrace_33, beamtrace_janitor_33},
        {beamtrace_34, beamtrace_janitor_34},
        {beamtrace_35, beamtrace_janitor_35},
        {beamtrace_36, beamtrace_janitor_36},
        {beamtrace_37, beamtrace_janitor_37},
        {beamtrace_38, beamtrace_janitor_38},
        {beamtrace_39, beamtrace_janitor_39},
        {beamtrace_40, beamtrace_janitor_40},
        {beamtrace_41, beamtrace_janitor_41},
        {beamtrace_42, beamtrace_janitor_42},
        {beamtrace_43, beamtrace_janitor_43},
        {beamtrace_44, beamtrace_janitor_44},
        {beamtrace_45, beamtrace_janitor_45},
        {beamtrace_46, beamtrace_janitor_46},
        {beamtrace_47, beamtrace_janitor_47},
        {beamtrace_48, beamtrace_janitor_48},
        {beamtrace_49, beamtrace_janitor_49},
        {beamtrace_50, beamtrace_janitor_50},
        {beamtrace_51, beamtrace_janitor_51},
        {beamtrace_52, beamtrace_janitor_52},
        {beamtrace_53, beamtrace_janitor_53},
        {beamtrace_54, beamtrace_janitor_54},
        {beamtrace_55, beamtrace_janitor_55},
        {beamtrace_56, beamtrace_janitor_56},
        {beamtrace_57, beamtrace_janitor_57},
        {beamtrace_58, beamtrace_janitor_58},
        {beamtrace_59, beamtrace_janitor_59},
        {beamtrace_60, beamtrace_janitor_60},
        {beamtrace_61, beamtrace_janitor_61},
        {beamtrace_62, beamtrace_janitor_62},
        {beamtrace_63, beamtrace_janitor_63},
        {beamtrace_64, beamtrace_janitor_64}
    ].
