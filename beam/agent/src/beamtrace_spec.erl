%% Checks a trace spec as it came from the client (docs/agent-protocol.md, "Spec"). What is accepted here is trusted afterwards.
-module(beamtrace_spec).

-export([check/1, has_contents/1]).
-export_type([spec/0]).

-type spec() :: #{atom() => term()}.

-define(FLAGS, [
    send,
    'receive',
    procs,
    call,
    return_to,
    running,
    exiting,
    garbage_collection,
    set_on_spawn,
    set_on_first_spawn,
    set_on_link,
    set_on_first_link
]).
-define(PORT_FLAGS, [send, 'receive', ports, running_ports]).
-define(KEYS, [
    processes,
    ports,
    flags,
    port_flags,
    kinds,
    calls,
    send_spec,
    receive_spec,
    scheduler,
    payload,
    limits,
    batch,
    take_over
]).

-spec check(term()) -> ok | {error, {bad_spec, term(), term()}}.
check(Spec) when is_map(Spec) ->
    Bad = [
        {Key, maps:get(Key, Spec, undefined)}
     || Key <- ?KEYS, not (is_map_key(Key, Spec) andalso valid(Key, maps:get(Key, Spec), Spec))
    ],
    case Bad of
        [] -> tracer(Spec);
        [{Key, Value} | _] -> {error, {bad_spec, Key, Value}}
    end;
check(Spec) ->
    {error, {bad_spec, spec, Spec}}.

%% Whether events bear contents, not only their shapes.
-spec has_contents(spec()) -> boolean().
has_contents(#{payload := {bytes, _, _}}) -> true;
has_contents(_) -> false.

%% Which tracer, what its stream begins with, and sampling may be left out.
tracer(#{tracer := Tracer}) when Tracer =/= native, Tracer =/= portable -> {error, {bad_spec, tracer, Tracer}};
tracer(#{recorder := Recorder} = Spec) ->
    case maps:get(tracer, Spec, portable) =:= native andalso valid_recorder(Recorder) of
        true -> tracer(maps:remove(recorder, Spec));
        false -> {error, {bad_spec, recorder, Recorder}}
    end;
tracer(#{instrumented := Instrumented} = Spec) ->
    case valid_instrumented(Instrumented) andalso honest(Spec) of
        true -> tracer(maps:remove(instrumented, Spec));
        false -> {error, {bad_spec, instrumented, Instrumented}}
    end;
tracer(#{overflow := Overflow}) when Overflow =/= drop_newest, Overflow =/= overwrite_oldest ->
    {error, {bad_spec, overflow, Overflow}};
tracer(#{marker := {Name, _, _}} = Spec) when is_atom(Name) -> tracer(maps:remove(marker, Spec));
tracer(#{marker := Marker}) -> {error, {bad_spec, marker, Marker}};
tracer(#{sampling := Sampling}) ->
    case Sampling of
        #{processes := Ppm, calls := Calls} when
            is_integer(Ppm), Ppm > 0, Ppm =< 1000000, is_integer(Calls), Calls > 0
        ->
            ok;
        _ ->
            {error, {bad_spec, sampling, Sampling}}
    end;
tracer(_) -> ok.

valid_instrumented(#{modules := Modules, processes := Processes, builds := Builds}) ->
    (Modules =:= all orelse (all(fun is_atom/1, Modules) andalso Modules =/= [])) andalso
        valid(processes, Processes, #{}) andalso
        lists:all(fun(Build) -> is_binary(maps:get(Build, Builds, none)) end, [off, portable, native, both]);
valid_instrumented(_) ->
    false.

%% What instrumented code tells the library reaches it from every process: who carries trace flags has no say there.
honest(#{tracer := native, instrumented := #{processes := Processes}, flags := Flags} = Spec) ->
    Processes =/= new andalso Processes =/= existing andalso not beamtrace_targets:inherits(Flags) andalso
        not beamtrace_sampling:wanted(Spec);
honest(_) ->
    true.

valid_recorder(#{bytes := Bytes, keep_ns := Keep, after_ns := After, interval_ns := Interval, triggers := Triggers}) ->
    is_integer(Bytes) andalso Bytes >= 65536 andalso Bytes =< 1073741824 andalso limit(Keep) andalso
        is_integer(After) andalso After >= 0 andalso is_integer(Interval) andalso Interval >= 0 andalso
        all(fun valid_trigger/1, Triggers) andalso length([Name || {_, {message, Name}} <- Triggers]) =< 8;
valid_recorder(_) ->
    false.

valid_trigger({Number, What}) when is_integer(Number), Number > 0, Number < 256 ->
    case What of
        exit -> true;
        call -> true;
        {message, Name} -> is_atom(Name);
        {alarm, {Event, Value}} -> lists:member(Event, [long_gc, long_schedule, large_heap]) andalso is_integer(Value) andalso Value > 0;
        _ -> false
    end;
valid_trigger(_) ->
    false.

valid(processes, P, _) when P =:= all; P =:= new; P =:= existing; P =:= none -> true;
valid(processes, {pids, Pids}, _) -> all(fun is_pid/1, Pids);
valid(processes, {registered, Names}, _) -> all(fun is_atom/1, Names);
valid(processes, {application, App}, _) -> is_atom(App);
valid(ports, P, _) when P =:= all; P =:= new; P =:= existing; P =:= none -> true;
valid(ports, {ports, Ports}, _) -> all(fun is_port/1, Ports);
valid(flags, Flags, _) -> all(fun(F) -> lists:member(F, ?FLAGS) end, Flags);
valid(port_flags, Flags, _) -> all(fun(F) -> lists:member(F, ?PORT_FLAGS) end, Flags);
valid(kinds, Mask, _) -> is_integer(Mask) andalso Mask >= 0;
valid(calls, Calls, Spec) -> all(fun(Call) -> valid_call(Call, Spec) end, Calls);
valid(send_spec, MatchSpec, _) -> valid_match_spec(MatchSpec);
valid(receive_spec, MatchSpec, _) -> valid_match_spec(MatchSpec);
valid(scheduler, Value, _) -> is_boolean(Value);
valid(payload, none, _) -> true;
valid(payload, shape, _) -> true;
valid(payload, {bytes, Max, Redact}, _) ->
    is_integer(Max) andalso Max > 0 andalso all(fun(Key) -> is_atom(Key) orelse is_binary(Key) end, Redact);
valid(limits, #{events := E, rate := R, seconds := S, memory := M, queue := Q, overhead := O}, _) ->
    Limits = [E, R, S, M, Q, O],
    lists:all(fun limit/1, Limits) andalso lists:any(fun is_integer/1, Limits);
valid(batch, #{events := Events, ms := Ms}, _) ->
    is_integer(Events) andalso Events > 0 andalso Events =< 65536 andalso
        is_integer(Ms) andalso Ms > 0 andalso Ms =< 60000;
valid(take_over, Value, _) -> is_boolean(Value);
valid(_, _, _) -> false.

valid_call({{M, F, A}, MatchSpec, Options}, Spec) ->
    is_atom(M) andalso is_atom(F) andalso valid_arity(F, A) andalso
        (M =/= '_' orelse (F =:= '_' andalso bounded(Spec))) andalso
        valid_match_spec(MatchSpec) andalso
        (Options =:= [local] orelse Options =:= [global]);
valid_call(_, _) ->
    false.

valid_arity(_, '_') -> true;
valid_arity('_', _) -> false;
valid_arity(_, A) -> is_integer(A) andalso A >= 0 andalso A =< 255.

%% Every function of every module: only where the volume is bounded.
bounded(#{limits := #{events := E, rate := R, overhead := O}}) -> lists:any(fun is_integer/1, [E, R, O]);
bounded(_) -> false.

valid_match_spec(true) -> true;
valid_match_spec(MatchSpec) -> all(fun is_tuple/1, MatchSpec).

limit(infinity) -> true;
limit(N) -> is_integer(N) andalso N > 0.

%% For a proper list; false for everything else.
all(Fun, [Item | Rest]) -> Fun(Item) andalso all(Fun, Rest);
all(_, Rest) -> Rest =:= [].
