%% Who is in the sample of a trace: finds processes and ports by the hash of their identity, sets and takes their flags, and writes the markers
%% that say so into the stream, each before the first event and behind the last. Called by beamtrace_sampling, in its process.
-module(beamtrace_sample).

-export([new/5, everybody/0, outside/2, threshold/1, processes/1, least/2]).
-export([begin_new/1, leave_new/1, is_new/1, let_in/2, enlist/3, admit/2, dismiss/3, dismiss_born/2, dismiss_ports/2]).
-export([take_flags/4, give_flags/4, tell/2]).
-export_type([sample/0, threshold/0, marker/0]).

-include("beamtrace_schema.hrl").

-type threshold() :: 0..16#8000000.
-type item() :: pid() | port().
-type marker() :: {process_traced | process_untraced, item()} | {sampling | sampling_new, undefined, integer(), integer()}.

%% erlang:phash2/1 is below this.
-define(EVERYBODY, 16#8000000).
%% Processes that are marked, then flagged, in one go.
-define(CHUNK, 256).
%% The tracer's answer, and the VM's barrier, after which something is stuck.
-define(ANSWER_MS, 5000).
%% A ring without room for a marker, or another thread in it.
-define(ROOM_TRIES, 50).

-record(sample, {
    tracer :: pid(),
    handle :: beamtrace_session:handle(),
    %% State of the native tracer's callbacks.
    native :: non_neg_integer() | none,
    %% Whom to look at: all processes, or these.
    roots :: all | [pid()],
    new :: boolean(),
    %% New processes are left out.
    new_left = false :: boolean(),
    inherit :: boolean(),
    %% `new`: who was there before.
    before = #{} :: #{pid() => true},
    ports :: all | existing | new | [port()],
    flags :: [atom()],
    port_flags :: [atom()],
    excluded :: #{item() => true}
}).
-opaque sample() :: #sample{}.

-spec new(beamtrace_session:handle(), pid(), non_neg_integer() | none, beamtrace_spec:spec(), #{item() => true}) -> sample().
new(Handle, Tracer, Native, #{flags := Wanted, port_flags := WantedPorts, ports := Ports} = Spec, Excluded) ->
    {Roots, New} = beamtrace_targets:roots(Spec, Excluded),
    {Flags, PortFlags} = beamtrace_targets:flags(Spec),
    #sample{
        tracer = Tracer,
        handle = Handle,
        native = Native,
        roots = Roots,
        new = New,
        inherit = beamtrace_targets:inherits(Wanted),
        before =
            case Spec of
                #{processes := new} when Native =:= none -> maps:from_keys(erlang:processes(), true);
                _ -> #{}
            end,
        ports =
            case Ports of
                none -> [];
                {ports, List} -> List;
                Which -> Which
            end,
        flags = Flags,
        port_flags =
            case WantedPorts of
                [] -> [];
                _ -> PortFlags
            end,
        excluded = Excluded
    }.

-spec everybody() -> threshold().
everybody() -> ?EVERYBODY.

-spec outside(item(), threshold()) -> boolean().
outside(_, ?EVERYBODY) -> false;
outside(Item, Threshold) -> erlang:phash2(Item) >= Threshold.

-spec threshold(Share :: float()) -> threshold().
threshold(Share) -> min(?EVERYBODY, max(1, round(Share * ?EVERYBODY))).

%% Of how many processes the share is.
-spec processes(sample()) -> non_neg_integer().
processes(#sample{roots = all}) -> erlang:system_info(process_count);
processes(#sample{roots = Roots}) -> length(Roots).

%% One process is left: of a list the one that comes first, of all of them about one. A single one is not sampled.
-spec least(threshold(), sample()) -> threshold().
least(_, #sample{roots = all} = S) -> threshold(1 / max(1, processes(S)));
least(_, #sample{roots = []}) -> 1;
least(Most, #sample{roots = [_]}) -> Most;
least(Most, #sample{roots = Roots}) -> min(Most, lists:min([erlang:phash2(Pid) || Pid <- Roots]) + 1).

%% Whether new processes are looked at.
-spec is_new(sample()) -> boolean().
is_new(#sample{new = New, new_left = Left}) -> New andalso not Left.

%% From now on new processes are left out: nobody looks at them, and nobody knows of them.
-spec leave_new(sample()) -> sample().
leave_new(#sample{handle = Handle} = S) ->
    _ = beamtrace_session:process(Handle, new, false, [all]),
    S#sample{new_left = true}.

%% From now on new processes and ports are looked at when they are born.
-spec begin_new(sample()) -> sample().
begin_new(#sample{} = S) -> flag_new(S#sample{new_left = false}).

flag_new(#sample{handle = Handle, flags = Flags, ports = Ports, port_flags = PortFlags} = S) ->
    _ = is_new(S) andalso beamtrace_session:process(Handle, new, true, Flags),
    _ = PortFlags =/= [] andalso (Ports =:= all orelse Ports =:= new) andalso beamtrace_session:port(Handle, new, true, PortFlags),
    S.

%% From here on new processes below the threshold are traced, others are not. Native: nor are processes that run from now on.
-spec let_in(threshold(), sample()) -> ok.
let_in(To, #sample{native = none, tracer = Tracer} = S) ->
    Tracer ! {beamtrace_threshold, To},
    %% It has heard when it answers.
    _ = tell([], S),
    ok;
let_in(To, #sample{native = Native}) ->
    _ = beamtrace_nif:share(Native, To),
    ok.

%% Those that come in; returns them.
-spec enlist(threshold(), threshold(), sample()) -> [item()].
enlist(From, To, S) -> admit(members(From, To, S), S).

-spec admit([item()], sample()) -> [item()].
admit([], _) ->
    [];
admit(Items, S) ->
    {Now, Later} = lists:split(min(?CHUNK, length(Items)), Items),
    Told = tell([{process_traced, Item} || Item <- Now], S),
    Set = [{Item, on(S, Item)} || {_, Item} <- Told],
    %% They have ended meanwhile, or are another tool's on a legacy node.
    _ = tell([{process_untraced, Item} || {Item, 0} <- Set], S),
    [Item || {Item, 1} <- Set] ++ admit(Later, S).

%% Those that go out; returns whom this has cost something. The native tracer's processes go by themselves, when they run next, and say so in
%% their ring.
-spec dismiss(threshold(), threshold(), sample()) -> [item()].
dismiss(From, To, #sample{native = none} = S) ->
    Items = [Item || Item <- leaving(From, To, S), is_port(Item) orelse is_process_alive(Item)],
    Off = [Item || Item <- Items, off(S, Item) > 0],
    delivered(S),
    _ = tell([{process_untraced, Item} || Item <- Off], S),
    Off;
dismiss(From, To, S) ->
    Off = [Port || Port <- port_members(From, To, S), off(S, Port) > 0],
    _ = tell([{process_untraced, Port} || Port <- Off], S),
    Off.

%% Portable tracer: processes that were born outside of the sample carry flags until here, and are filtered.
-spec dismiss_born([pid()], sample()) -> ok.
dismiss_born(Pids, #sample{tracer = Tracer} = S) ->
    _ = [off(S, Pid) || Pid <- Pids],
    delivered(S),
    Tracer ! {beamtrace_unfilter, Pids},
    ok.

%% Ports that were opened outside of the sample.
-spec dismiss_ports(threshold(), sample()) -> ok.
dismiss_ports(_, #sample{port_flags = []}) ->
    ok;
dismiss_ports(Threshold, #sample{ports = Ports} = S) when is_atom(Ports), Threshold < ?EVERYBODY ->
    _ = [off(S, Port) || Port <- port_members(Threshold, ?EVERYBODY, S)],
    ok;
dismiss_ports(_, _) ->
    ok.

%% Flags of a kind that is left out, of everybody in the sample. New processes have been left out before `procs` is, without which nobody would know of them.
-spec take_flags([atom()], [atom()], threshold(), sample()) -> sample().
take_flags(Flags, PortFlags, Threshold, #sample{handle = Handle} = S) ->
    _ = is_new(S) andalso beamtrace_session:process(Handle, new, false, Flags),
    _ = PortFlags =/= [] andalso is_atom(S#sample.ports) andalso
        set(fun() -> beamtrace_session:port(Handle, new, false, PortFlags) end),
    _ = [
        case Item of
            Port when is_port(Port) -> set(fun() -> beamtrace_session:port(Handle, Port, false, PortFlags) end);
            Pid -> set(fun() -> beamtrace_session:process(Handle, Pid, false, Flags) end)
        end
     || Item <- leaving(0, Threshold, S)
    ],
    S#sample{flags = S#sample.flags -- Flags, port_flags = S#sample.port_flags -- PortFlags}.

-spec give_flags([atom()], [atom()], threshold(), sample()) -> sample().
give_flags(Flags, PortFlags, Threshold, #sample{flags = Before, port_flags = PortsBefore} = S0) ->
    S = flag_new(S0#sample{flags = Flags ++ Before, port_flags = PortFlags ++ PortsBefore}),
    Items = leaving(0, Threshold, S),
    %% Some may have been born while new processes were left out.
    _ =
        case S#sample.new_left of
            true -> admit(Items, S);
            false -> [on(S, Item) || Item <- Items]
        end,
    S.

members(From, To, #sample{roots = Roots} = S) ->
    Processes =
        case Roots of
            all -> erlang:processes();
            List -> List
        end,
    between(Processes, From, To, S) ++ port_members(From, To, S).

%% Who may carry flags: also what was born or has inherited them since.
leaving(From, To, #sample{roots = all} = S) ->
    members(From, To, S);
leaving(From, To, #sample{new = false, inherit = false} = S) ->
    members(From, To, S);
leaving(From, To, #sample{roots = Roots, before = Before, inherit = Inherit} = S) ->
    Others = [Pid || Pid <- between(erlang:processes(), From, To, S), not is_map_key(Pid, Before)],
    Flagged =
        case Inherit of
            true -> [Pid || Pid <- Others, beamtrace_session:flagged(S#sample.handle, Pid)];
            false -> Others
        end,
    lists:usort(Flagged ++ between(Roots, From, To, S)) ++ port_members(From, To, S).

port_members(_, _, #sample{port_flags = []}) -> [];
port_members(From, To, #sample{ports = Ports} = S) when is_list(Ports) -> between(Ports, From, To, S);
port_members(From, To, S) -> between(erlang:ports(), From, To, S).

between(Items, From, To, #sample{excluded = Excluded}) ->
    case [Item || Item <- Items, Hash <- [erlang:phash2(Item)], Hash >= From, Hash < To, not is_map_key(Item, Excluded)] of
        [] ->
            [];
        Found ->
            Ours = beamtrace_names:processes(),
            [Item || Item <- Found, not is_map_key(Item, Ours)]
    end.

on(#sample{port_flags = []}, Port) when is_port(Port) ->
    0;
on(#sample{handle = Handle, port_flags = Flags}, Port) when is_port(Port) ->
    set(fun() -> beamtrace_session:port(Handle, Port, true, Flags) end);
on(#sample{handle = Handle, flags = Flags}, Pid) ->
    set(fun() -> beamtrace_session:process(Handle, Pid, true, Flags) end).

off(#sample{handle = Handle}, Port) when is_port(Port) ->
    set(fun() -> beamtrace_session:port(Handle, Port, false, [all]) end);
off(#sample{handle = Handle}, Pid) ->
    set(fun() -> beamtrace_session:process(Handle, Pid, false, [all]) end).

%% It may have ended.
set(Fun) ->
    try
        Fun()
    catch
        error:badarg -> 0
    end.

%% Everything so far is in the tracer's queue.
delivered(#sample{handle = Handle}) ->
    Ref = beamtrace_session:delivered(Handle),
    receive
        {trace_delivered, all, Ref} -> ok
    after ?ANSWER_MS -> exit(no_barrier)
    end.

%% Markers. When this returns they are in the stream before anything that happens afterwards; what found no room is left out of the result.
-spec tell([marker()], sample()) -> [marker()].
tell(Markers, #sample{native = none, tracer = Tracer}) ->
    Ref = make_ref(),
    At = erlang:monotonic_time(nanosecond),
    Tracer ! {beamtrace_markers, [wire(At, Marker) || Marker <- Markers], {self(), Ref}},
    receive
        {beamtrace_marked, Ref} -> Markers
    after ?ANSWER_MS -> exit(tracer_stuck)
    end;
tell(Markers, #sample{native = Native}) ->
    [Marker || Marker <- Markers, mark(Native, Marker, ?ROOM_TRIES)].

wire(At, {Name, Item}) -> {At, Item, Name, 0, 0};
wire(At, {Name, undefined, A, B}) -> {At, 0, Name, A, B}.

mark(Native, {Name, Item}, Tries) -> mark(Native, {Name, Item, 0, 0}, Tries);
mark(_, _, 0) ->
    false;
mark(Native, {Name, Item, A, B} = Marker, Tries) ->
    case beamtrace_nif:mark(Native, Name, Item, A, B) of
        true ->
            true;
        false ->
            receive
            after 1 -> mark(Native, Marker, Tries - 1)
            end
    end.
