%% What instrumented code calls. Builds of one source take each other's place while instrumented code runs (docs/transform.md, "The runtime"):
%%   off            every function does nothing and `enter` answers 0, which tells the instrumented function not to call again for this frame
%%   ON, PORTABLE   each event goes through a function of its own (`entered`, `left` …) that does nothing: there the portable tracer has its breakpoints
%%   ON, NATIVE     the native tracer's library writes the event; its `enter` answers 0 where no trace wants the frame
%%   ON, both       traces of both tracers on one node
%% Nothing here may raise, block or send.
-module(beamtrace_rt).

-export([enter/2, enter/3, enter/4, enter/5, enter/6, enter/7, enter/8, enter_list/3]).
-export([leave/4, tail/3, exception/6]).
-export([info/0]).
-export([begins/5, callback/6, callback_tail/5, callback_exception/8, continues/3, locals/4]).

-type id() :: non_neg_integer().
-type site() :: non_neg_integer().
-export_type([id/0, site/0]).

%% What instrumented modules rely on; another number is another runtime.
-define(ABI, 1).

-ifdef(NATIVE).
-ifdef(PORTABLE).
-define(BUILD, both).
-else.
-define(BUILD, native).
-endif.
-else.
-ifdef(ON).
-define(BUILD, portable).
-else.
-define(BUILD, off).
-endif.
-endif.

-ifdef(ON).

-export([entered/4, left/4, tail_called/3, raised/6]).
-ifdef(PORTABLE).
-export([called_back/4, locals_at/3]).
-endif.

-spec entered(id(), module(), site(), [term()]) -> ok.
entered(_, _, _, _) -> ok.

-spec left(id(), module(), site(), term()) -> ok.
left(_, _, _, _) -> ok.

-spec tail_called(id(), module(), site()) -> ok.
tail_called(_, _, _) -> ok.

-spec raised(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
raised(_, _, _, _, _, _) -> ok.

-endif.

-ifdef(NATIVE).
-ifdef(PORTABLE).

%% The library's ids are even. A frame that it does not want has one of its own.
-define(ENTER(Native, Arguments), begin
    Id =
        case Native of
            0 -> 2 * erlang:unique_integer([positive]) + 1;
            Given -> Given
        end,
    _ = ?MODULE:entered(Id, M, S, Arguments),
    Id
end).
-define(TELL(Terms, Native, Portable), begin
    _ = Native,
    Portable
end).

-else.

-define(ENTER(Native, Arguments), Native).
-define(TELL(Terms, Native, Portable), Native).

-endif.
-else.
-ifdef(ON).

-define(ENTER(Native, Arguments), begin
    Id = erlang:unique_integer([positive]),
    _ = ?MODULE:entered(Id, M, S, Arguments),
    Id
end).
-define(TELL(Terms, Native, Portable), Portable).

-else.

-define(ENTER(Native, Arguments), begin
    _ = {M, S, fun() -> Arguments end},
    0
end).
-define(TELL(Terms, Native, Portable), begin
    _ = Terms,
    ok
end).

-endif.
-endif.

-spec enter(module(), site()) -> id().
enter(M, S) -> ?ENTER(beamtrace_nif:enter(M, S), []).

-spec enter(module(), site(), term()) -> id().
enter(M, S, A) -> ?ENTER(beamtrace_nif:enter(M, S, A), [A]).

-spec enter(module(), site(), term(), term()) -> id().
enter(M, S, A, B) -> ?ENTER(beamtrace_nif:enter(M, S, A, B), ([A, B])).

-spec enter(module(), site(), term(), term(), term()) -> id().
enter(M, S, A, B, C) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C), ([A, B, C])).

-spec enter(module(), site(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D), ([A, B, C, D])).

-spec enter(module(), site(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D, E), ([A, B, C, D, E])).

-spec enter(module(), site(), term(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E, F) -> ?ENTER(beamtrace_nif:enter(M, S, A, B, C, D, E, F), ([A, B, C, D, E, F])).

-spec enter_list(module(), site(), [term()]) -> id().
enter_list(M, S, Arguments) -> ?ENTER(beamtrace_nif:enter_list(M, S, Arguments), Arguments).

-spec leave(id(), module(), site(), term()) -> ok.
leave(Id, M, S, Result) -> ?TELL(({Id, M, S, Result}), beamtrace_nif:leave(Id, M, S, Result), ?MODULE:left(Id, M, S, Result)).

-spec tail(id(), module(), site()) -> ok.
tail(Id, M, S) -> ?TELL(({Id, M, S}), beamtrace_nif:tail(Id, M, S), ?MODULE:tail_called(Id, M, S)).

-spec exception(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
exception(Id, M, S, Class, Reason, Stack) ->
    ?TELL(({Id, M, S, Class, Reason, Stack}), beamtrace_nif:exception(Id, M, S, Class, Reason, Stack), ?MODULE:raised(Id, M, S, Class, Reason, Stack)).

%% Whose module this is, and which build: how a session knows what it finds on a node.
-spec info() -> {beamtrace_rt, pos_integer(), off | portable | native | both}.
info() -> {beamtrace_rt, ?ABI, ?BUILD}.

%% --- Callbacks of behaviours ---
%%
%% A callback's frame begins with what it was asked, and by which module it was called: whether an earlier one of the process can still be under
%% way, where its end was not told, shows by that. It ends with a summary: what it was asked, by whom, what it answered, and what became of the state. It is made here, in
%% the process itself, so that state and message need not be copied to a tracer: in bounded time and space, whatever the terms.
%% Only where the portable tracer listens: the native one carries no contents.
%% `Context` is `{Trigger, From, State, Name of the state}` as the callback got them, '-beamtrace-none-' for what it has not.

-type class() ::
    server | event | event_call | state | plain | statem_init | statem_state | statem_event | statem_change | start | join | mount.
-type context() :: {Trigger :: term(), From :: term(), State :: term(), Extra :: term()}.
%% How results are read; with the bytes that values may take.
-type how() :: class() | {class(), pos_integer()}.

-ifdef(PORTABLE).

%% Keys of a map, or elements of a tuple, that are looked at; that are named; actions that are named.
-define(KEYS_MAX, 64).
-define(CHANGED_MAX, 32).
-define(ACTIONS_MAX, 8).
%% Terms gone through to see whether two values are equal that are not the same term.
-define(FUEL, 32).
-define(BYTES_COMPARED, 1024).
-define(KEY_BYTES_MAX, 64).
-define(LIST_MAX, 16).
-define(NONE, '-beamtrace-none-').
%% The helper of an instrumented module that calls begins/5.
-define(BEGINS, '-beamtrace-begins-').

-type shape() :: {Type :: atom(), Size :: non_neg_integer(), Tags :: [atom()]}.
%% `Different` keys have other values for sure; of `Rebuilt` ones the value is another term, too large to compare.
-type changes() :: none | {Different :: [term()], Rebuilt :: [term()], Whole :: boolean()}.
-type summary() ::
    {Outcome :: atom(), Trigger :: none | shape(), Caller :: term(), Reply :: none | shape(), Reason :: none | shape(), Next :: [{atom(), term()}],
        Names :: {[term()], [term()]}, Before :: none | shape(), After :: none | shape(), changes(), Assigns :: changes(), Values :: [term()]}.

-spec begins(id(), module(), site(), how(), context()) -> ok.
begins(Id, M, S, How, Context) ->
    {Class, Bytes} = how(How),
    case is_callback(Class, Context) of
        true -> ?MODULE:called_back(Id, M, S, summary(Context, {begins, no, no, no, [{by, caller_of(M)}], no}, Bytes));
        false -> ok
    end.

%% Whose function has called the callback of this module that we are in.
caller_of(M) ->
    {current_stacktrace, Frames} = process_info(self(), current_stacktrace),
    case [F || {Of, Name, _, _} = F <- Frames, Of =/= ?MODULE, Name =/= ?BEGINS] of
        [{M, _, _, _}, {By, _, _, _} | _] -> By;
        _ -> none
    end.

-spec callback(id(), module(), site(), how(), context(), term()) -> ok.
callback(Id, M, S, How, Context, Result) ->
    _ = leave(Id, M, S, Result),
    {Class, Bytes} = how(How),
    case is_callback(Class, Context) of
        true -> ?MODULE:called_back(Id, M, S, summary(Context, outcome(Class, Result), Bytes));
        false -> ok
    end.

-spec callback_tail(id(), module(), site(), how(), context()) -> ok.
callback_tail(Id, M, S, How, Context) ->
    _ = tail(Id, M, S),
    {Class, Bytes} = how(How),
    case is_callback(Class, Context) of
        true -> ?MODULE:called_back(Id, M, S, summary(Context, {tail_call, no, no, no, [], no}, Bytes));
        false -> ok
    end.

-spec callback_exception(id(), module(), site(), error | exit | throw, term(), [term()], how(), context()) -> ok.
callback_exception(Id, M, S, Kind, Reason, Stack, How, Context) ->
    _ = exception(Id, M, S, Kind, Reason, Stack),
    {Class, Bytes} = how(How),
    case is_callback(Class, Context) of
        true -> ?MODULE:called_back(Id, M, S, summary(Context, {exception, no, {it, Reason}, no, [{class, Kind}], no}, Bytes));
        false -> ok
    end.

%% The frame may be what is left of a callback: whoever has seen it go by a tail call to here knows.
-spec continues(id(), module(), site()) -> ok.
continues(Id, M, S) -> ?MODULE:called_back(Id, M, S, continues).

-spec called_back(id(), module(), site(), summary() | continues) -> ok.
called_back(_, _, _, _) -> ok.

how({Class, Bytes}) -> {Class, Bytes};
how(Class) -> {Class, 0}.

%% A function of three arguments is a state function only when it is called as one.
is_callback(statem_state, {_, Type, _, _}) -> is_event_type(Type);
is_callback(_, _) -> true.

is_event_type({call, {_, _}}) -> true;
is_event_type({timeout, _}) -> true;
is_event_type(Type) -> lists:member(Type, [cast, info, enter, internal, timeout, state_timeout]).

%% Outcome, reply, reason, state, what comes next, state name. `no`: there is none; else `{it, Term}`.
outcome(server, {reply, R, S}) -> {reply, {it, R}, no, {it, S}, [], no};
outcome(server, {reply, R, S, X}) -> {reply, {it, R}, no, {it, S}, next(X), no};
outcome(server, {noreply, S}) -> {noreply, no, no, {it, S}, [], no};
outcome(server, {noreply, S, X}) -> {noreply, no, no, {it, S}, next(X), no};
outcome(server, {stop, Why, S}) -> {stop, no, {it, Why}, {it, S}, [], no};
outcome(server, {stop, Why, R, S}) -> {stop, {it, R}, {it, Why}, {it, S}, [], no};
outcome(server, {ok, S}) -> {ok, no, no, {it, S}, [], no};
outcome(server, {ok, S, X}) -> {ok, no, no, {it, S}, next(X), no};
outcome(mount, {ok, S, _}) -> {ok, no, no, {it, S}, [], no};
outcome(join, {ok, R, S}) -> {ok, {it, R}, no, {it, S}, [], no};
outcome(Class, Result) when Class =:= mount; Class =:= join -> outcome(server, Result);
outcome(start, {ok, Pid}) -> {ok, {it, Pid}, no, no, [], no};
outcome(start, {ok, Pid, S}) -> {ok, {it, Pid}, no, {it, S}, [], no};
outcome(event, {ok, S}) -> {ok, no, no, {it, S}, [], no};
outcome(event, {ok, S, X}) -> {ok, no, no, {it, S}, next(X), no};
outcome(event, {swap_handler, _, S, _, _}) -> {swap_handler, no, no, {it, S}, [], no};
outcome(event, remove_handler) -> {remove_handler, no, no, no, [], no};
outcome(event_call, {ok, R, S}) -> {ok, {it, R}, no, {it, S}, [], no};
outcome(event_call, {ok, R, S, X}) -> {ok, {it, R}, no, {it, S}, next(X), no};
outcome(event_call, {swap_handler, R, _, S, _, _}) -> {swap_handler, {it, R}, no, {it, S}, [], no};
outcome(event_call, {remove_handler, R}) -> {remove_handler, {it, R}, no, no, [], no};
outcome(statem_init, {ok, Name, D}) -> {ok, no, no, {it, D}, [], {it, Name}};
outcome(statem_init, {ok, Name, D, As}) -> acting({ok, no, no, {it, D}, [], {it, Name}}, As);
outcome(statem_change, {ok, Name, D}) -> {ok, no, no, {it, D}, [], {it, Name}};
outcome(Class, Result) when Class =:= statem_state; Class =:= statem_event -> statem(Result);
outcome(state, S) -> {value, no, no, {it, S}, [], no};
outcome(Class, ignore) when Class =/= plain -> {ignore, no, no, no, [], no};
outcome(Class, {Failed, Why}) when Class =/= plain, (Failed =:= stop orelse Failed =:= error) -> {Failed, no, {it, Why}, no, [], no};
outcome(_, Value) -> {value, {it, Value}, no, no, [], no}.

statem({next_state, Name, D}) -> {next_state, no, no, {it, D}, [], {it, Name}};
statem({next_state, Name, D, As}) -> acting({next_state, no, no, {it, D}, [], {it, Name}}, As);
statem({Keeps, D}) when Keeps =:= keep_state; Keeps =:= repeat_state -> {Keeps, no, no, {it, D}, [], keep};
statem({Keeps, D, As}) when Keeps =:= keep_state; Keeps =:= repeat_state -> acting({Keeps, no, no, {it, D}, [], keep}, As);
statem(Keeps) when Keeps =:= keep_state_and_data; Keeps =:= repeat_state_and_data -> {Keeps, no, no, keep, [], keep};
statem({Keeps, As}) when Keeps =:= keep_state_and_data; Keeps =:= repeat_state_and_data -> acting({Keeps, no, no, keep, [], keep}, As);
statem(stop) -> {stop, no, {it, normal}, keep, [], keep};
statem({stop, Why}) -> {stop, no, {it, Why}, keep, [], keep};
statem({stop, Why, D}) -> {stop, no, {it, Why}, {it, D}, [], keep};
statem({stop_and_reply, Why, Rs}) -> acting({stop_and_reply, no, {it, Why}, keep, [], keep}, Rs);
statem({stop_and_reply, Why, Rs, D}) -> acting({stop_and_reply, no, {it, Why}, {it, D}, [], keep}, Rs);
statem(Value) -> {value, {it, Value}, no, no, [], keep}.

%% Actions by name; the first reply among them is the callback's.
acting({Outcome, _, Why, D, _, Name}, Actions) ->
    {Reply, Next} = actions(Actions, ?ACTIONS_MAX, no, []),
    {Outcome, Reply, Why, D, Next, Name}.

actions([], _, Reply, Next) -> {Reply, lists:reverse(Next)};
actions(_, 0, Reply, Next) -> {Reply, lists:reverse(Next)};
actions([{reply, _, R} | As], N, no, Next) -> actions(As, N - 1, {it, R}, Next);
actions([A | As], N, Reply, Next) -> actions(As, N - 1, Reply, next(A) ++ Next);
actions(A, N, Reply, Next) -> actions([A], N, Reply, Next).

next({continue, What}) -> [{continue, shape(What)}];
next(hibernate) -> [{hibernate, true}];
next({hibernate, Yes}) when is_boolean(Yes) -> [{hibernate, Yes}];
next(T) when is_integer(T); T =:= infinity -> [{timeout, small(T)}];
next({Kind, T, _}) when Kind =:= timeout; Kind =:= state_timeout -> [{Kind, small(T)}];
next({Kind, T, _, _}) when Kind =:= timeout; Kind =:= state_timeout -> [{Kind, small(T)}];
next({{timeout, Name}, T, _}) -> [{generic_timeout, {small(Name), small(T)}}];
next({{timeout, Name}, T, _, _}) -> [{generic_timeout, {small(Name), small(T)}}];
next({next_event, Type, What}) -> [{next_event, {small(Type), shape(What)}}];
next(postpone) -> [{postpone, true}];
next(Other) -> [{leading(Other), shape(Other)}].

summary({Trigger, From, State, Name}, {Outcome, Reply, Why, After, Next, NewName}, Bytes) ->
    {Caller, Type} = caller(From),
    Old = given(State),
    New = kept(After, Old),
    {Outcome, shape_it(given(Trigger)), Caller, shape_it(Reply), shape_it(Why), Type ++ Next,
        {name_it(given(Name)), name_it(kept(NewName, given(Name)))}, shape_it(Old), shape_it(New),
        changes(Old, New), assigns(Old, New), values(Bytes, [given(Trigger), Reply, Old, New, Why])}.

given(?NONE) -> no;
given(T) -> {it, T}.

%% The pid of a `From`, and the type of a state machine's event.
caller({call, {Pid, _}}) when is_pid(Pid) -> {Pid, [{event_type, call}]};
caller({Pid, _}) when is_pid(Pid) -> {Pid, []};
%% The owner of a task.
caller({Node, _, Pid}) when is_atom(Node), is_pid(Pid) -> {Pid, []};
caller(?NONE) -> {none, []};
caller({timeout, Name}) -> {none, [{event_type, {timeout, small(Name)}}]};
caller(Type) when is_atom(Type) -> {none, [{event_type, Type}]};
caller(_) -> {none, []}.

kept(keep, Old) -> Old;
kept(It, _) -> It.

shape_it({it, T}) -> shape(T);
shape_it(_) -> none.

name_it({it, T}) -> [small(T)];
name_it(_) -> [].

%% Names: atoms and what is no larger; of anything else the shape.
small(T) when is_atom(T); is_float(T); is_pid(T); is_reference(T) -> T;
small(T) when is_integer(T), T > -16#1000000000000000, T < 16#1000000000000000 -> T;
small(T) when is_binary(T), byte_size(T) =< ?KEY_BYTES_MAX -> T;
small(T) -> shape(T).

%% As beamtrace_shape has it, with names in place of numbers.
-spec shape(term()) -> shape().
shape({'$gen_call', _, T}) -> {tuple, 3, tags('$gen_call', leading(T))};
shape({'$gen_cast', T}) -> {tuple, 2, tags('$gen_cast', leading(T))};
shape({}) -> {tuple, 0, []};
shape({A}) -> {tuple, 1, tags(atom_of(A), '')};
shape(T) when is_tuple(T) -> {tuple, tuple_size(T), tags(atom_of(element(1, T)), leading(element(2, T)))};
shape(T) when is_atom(T) -> {atom, 0, [T]};
shape(T) when is_binary(T) -> {binary, byte_size(T), []};
shape([]) -> {nil, 0, []};
shape([_ | T]) -> {list, count(T, 1), []};
shape(#{'__struct__' := S} = T) when is_atom(S) -> {map, map_size(T), [S]};
shape(T) when is_map(T) -> {map, map_size(T), []};
shape(T) when is_integer(T) -> {integer, 0, []};
shape(T) when is_pid(T) -> {pid, 0, []};
shape(T) when is_reference(T) -> {reference, 0, []};
shape(T) when is_float(T) -> {float, 0, []};
shape(T) when is_function(T) -> {'fun', 0, []};
shape(T) when is_port(T) -> {port, 0, []};
shape(T) when is_bitstring(T) -> {bitstring, bit_size(T), []};
shape(_) -> {other, 0, []}.

tags('', '') -> [];
tags(A, '') -> [A];
tags(A, B) -> [A, B].

leading(T) when is_atom(T) -> T;
leading(T) when is_tuple(T), tuple_size(T) > 0 -> atom_of(element(1, T));
leading(_) -> ''.

atom_of(T) when is_atom(T) -> T;
atom_of(_) -> ''.

count([_ | T], N) when N < ?LIST_MAX -> count(T, N + 1);
count(_, N) -> N.

%% What differs between two states at their top.
-spec changes(no | {it, term()}, no | {it, term()}) -> changes().
changes({it, Old}, {it, New}) when is_map(Old), is_map(New) ->
    case erts_debug:same(Old, New) of
        true -> {[], [], true};
        false -> map_changes(Old, New)
    end;
changes({it, Old}, {it, New}) when is_tuple(Old), tuple_size(Old) =:= tuple_size(New) ->
    tuple_changes(1, Old, New, [], []);
changes(_, _) ->
    none.

%% What a LiveView's socket or a connection carries for its user.
assigns({it, #{assigns := Old}}, {it, #{assigns := New}}) -> changes({it, Old}, {it, New});
assigns(_, _) -> none.

tuple_changes(I, Old, _, Ds, Rs) when I > tuple_size(Old) -> {lists:reverse(Ds), lists:reverse(Rs), true};
tuple_changes(I, _, _, Ds, Rs) when I > ?CHANGED_MAX -> {lists:reverse(Ds), lists:reverse(Rs), false};
tuple_changes(I, Old, New, Ds, Rs) ->
    case equal(element(I, Old), element(I, New), ?FUEL) of
        different -> tuple_changes(I + 1, Old, New, [I | Ds], Rs);
        unknown -> tuple_changes(I + 1, Old, New, Ds, [I | Rs]);
        _ -> tuple_changes(I + 1, Old, New, Ds, Rs)
    end.

map_changes(Old, New) ->
    {Ds, Rs, Added, Whole} = map_changes(maps:next(maps:iterator(New)), Old, ?KEYS_MAX, {[], [], 0, true}),
    case map_size(Old) + Added - map_size(New) of
        0 when Whole -> {Ds, Rs, true};
        %% Of so many keys a look at some would hardly meet one that is gone.
        _ when map_size(Old) > ?KEYS_MAX, not Whole -> {Ds, Rs, false};
        _ -> gone(maps:next(maps:iterator(Old)), New, ?KEYS_MAX, {Ds, Rs, Whole})
    end.

map_changes(none, _, _, Found) -> Found;
map_changes(_, _, 0, {Ds, Rs, Added, _}) -> {Ds, Rs, Added, false};
map_changes({K, V, Rest}, Old, N, {Ds, Rs, Added, Whole} = Found) ->
    Next = maps:next(Rest),
    case is_small(K) andalso length(Ds) + length(Rs) < ?CHANGED_MAX of
        false ->
            map_changes(Next, Old, N - 1, {Ds, Rs, Added, false});
        true ->
            case Old of
                #{K := V0} ->
                    case equal(V0, V, ?FUEL) of
                        different -> map_changes(Next, Old, N - 1, {[K | Ds], Rs, Added, Whole});
                        unknown -> map_changes(Next, Old, N - 1, {Ds, [K | Rs], Added, Whole});
                        _ -> map_changes(Next, Old, N - 1, Found)
                    end;
                _ ->
                    map_changes(Next, Old, N - 1, {[K | Ds], Rs, Added + 1, Whole})
            end
    end.

%% Keys that are no longer there.
gone(none, _, _, Found) -> Found;
gone(_, _, 0, {Ds, Rs, _}) -> {Ds, Rs, false};
gone({K, _, Rest}, New, N, {Ds, Rs, Whole}) ->
    Next = maps:next(Rest),
    case is_small(K) andalso length(Ds) + length(Rs) < ?CHANGED_MAX of
        false -> gone(Next, New, N - 1, {Ds, Rs, false});
        true when is_map_key(K, New) -> gone(Next, New, N - 1, {Ds, Rs, Whole});
        true -> gone(Next, New, N - 1, {[K | Ds], Rs, Whole})
    end.

%% Whether looking for the key and sending it takes bounded time.
is_small(K) when is_atom(K); is_float(K); is_pid(K); is_reference(K) -> true;
is_small(K) when is_integer(K) -> K > -16#1000000000000000 andalso K < 16#1000000000000000;
is_small(K) when is_binary(K) -> byte_size(K) =< ?KEY_BYTES_MAX;
is_small(_) -> false.

%% Fuel left when the two are equal, `different`, or `unknown` when it would take too long to say. Terms that were carried over are the
%% same in memory, which is seen at once.
equal(A, B, Fuel) ->
    case erts_debug:same(A, B) of
        true -> Fuel;
        false when Fuel =< 0 -> unknown;
        false -> alike(A, B, Fuel - 1)
    end.

alike([A | As], [B | Bs], Fuel) ->
    case equal(A, B, Fuel) of
        Left when is_integer(Left) -> equal(As, Bs, Left);
        Other -> Other
    end;
alike(A, B, Fuel) when is_tuple(A), is_tuple(B), tuple_size(A) =:= tuple_size(B) -> elements(1, A, B, Fuel);
alike(A, B, Fuel) when is_map(A), is_map(B), map_size(A) =:= map_size(B) ->
    pairs(maps:next(maps:iterator(A)), B, Fuel);
alike(A, B, Fuel) when is_bitstring(A), is_bitstring(B), bit_size(A) =:= bit_size(B) ->
    case bit_size(A) =< ?BYTES_COMPARED * 8 of
        true -> alike(A =:= B, Fuel);
        false -> unknown
    end;
alike(A, B, Fuel) when is_integer(A), is_integer(B) ->
    case is_small(A) orelse is_small(B) of
        true -> alike(A =:= B, Fuel);
        false -> unknown
    end;
alike(A, B, Fuel) when is_float(A); is_pid(A); is_reference(A); is_port(A) -> alike(A =:= B, Fuel);
alike(A, B, _) when is_function(A), is_function(B) -> unknown;
alike(_, _, _) -> different.

alike(true, Fuel) -> Fuel;
alike(false, _) -> different.

elements(I, A, _, Fuel) when I > tuple_size(A) -> Fuel;
elements(I, A, B, Fuel) ->
    case equal(element(I, A), element(I, B), Fuel) of
        Left when is_integer(Left) -> elements(I + 1, A, B, Left);
        Other -> Other
    end.

pairs(none, _, Fuel) -> Fuel;
pairs({K, V, Rest}, B, Fuel) ->
    case is_small(K) of
        false ->
            unknown;
        true ->
            case B of
                #{K := V1} ->
                    case equal(V, V1, Fuel - 1) of
                        Left when is_integer(Left) -> pairs(maps:next(Rest), B, Left);
                        Other -> Other
                    end;
                _ ->
                    different
            end
    end.

%% The terms themselves, each cut to so many bytes. Redaction is the tracer's, which knows the keys.
values(0, _) -> [];
values(Bytes, Terms) -> [cut_it(T, Bytes) || T <- Terms].

cut_it({it, T}, Bytes) -> [element(1, cut(T, Bytes, 32))];
cut_it(_, _) -> [].

cut(_, Left, Depth) when Left =< 0; Depth =:= 0 -> {'[trimmed]', Left};
cut(T, Left, _) when is_atom(T); is_float(T); is_pid(T); is_port(T); is_reference(T) -> {T, Left - 9};
cut(T, Left, _) when is_integer(T) ->
    case is_small(T) of
        true -> {T, Left - 9};
        false -> {'[trimmed]', Left - 9}
    end;
cut(T, Left, _) when is_binary(T) ->
    Cut = binary:copy(binary:part(T, 0, min(byte_size(T), Left))),
    {Cut, Left - 9 - byte_size(Cut)};
cut([], Left, _) -> {[], Left - 1};
cut([_ | _] = T, Left, Depth) -> cut_list(T, [], Left - 9, Depth - 1);
cut(T, Left, Depth) when is_tuple(T) -> cut_tuple(1, T, [], Left - 9, Depth - 1);
cut(T, Left, Depth) when is_map(T) -> cut_map(maps:next(maps:iterator(T)), #{}, Left - 9, Depth - 1);
cut(T, Left, _) when is_function(T) ->
    %% Its environment may hold anything.
    [{_, M}, {_, F}, {_, A}] = [erlang:fun_info(T, K) || K <- [module, name, arity]],
    {{'[fun]', M, F, A}, Left - 36};
cut(T, Left, _) -> {shape(T), Left - 9}.

cut_list([H | T], Acc, Left, Depth) when Left > 0 ->
    {E, Left1} = cut(H, Left, Depth),
    cut_list(T, [E | Acc], Left1, Depth);
cut_list([], Acc, Left, _) -> {lists:reverse(Acc), Left};
cut_list([_ | _], Acc, Left, _) -> {lists:reverse(Acc, ['[trimmed]']), Left};
cut_list(T, Acc, Left, Depth) ->
    {E, Left1} = cut(T, Left, Depth),
    {lists:reverse(Acc, E), Left1}.

cut_tuple(I, T, Acc, Left, _) when I > tuple_size(T) -> {list_to_tuple(lists:reverse(Acc)), Left};
cut_tuple(_, _, Acc, Left, _) when Left =< 0 -> {list_to_tuple(lists:reverse(Acc, ['[trimmed]'])), Left};
cut_tuple(I, T, Acc, Left, Depth) ->
    {E, Left1} = cut(element(I, T), Left, Depth),
    cut_tuple(I + 1, T, [E | Acc], Left1, Depth).

cut_map(none, Acc, Left, _) -> {Acc, Left};
cut_map(_, Acc, Left, _) when Left =< 0 -> {Acc#{'[trimmed]' => '[trimmed]'}, Left};
cut_map({K, V, Rest}, Acc, Left, Depth) ->
    {K1, Left1} = cut(K, Left - 1, Depth),
    {V1, Left2} = cut(V, Left1, Depth),
    cut_map(maps:next(Rest), Acc#{K1 => V1}, Left2, Depth).

%% --- Variables at a line ---

%% Each with the key that says whether its value is to be redacted, which is the tracer's.
-spec locals(module(), site(), [{atom(), term()}], pos_integer()) -> ok.
locals(M, S, Variables, Bytes) ->
    ?MODULE:locals_at(M, S, [{K, element(1, cut(V, Bytes, 32))} || {K, V} <- Variables]).

-spec locals_at(module(), site(), [{atom(), term()}]) -> ok.
locals_at(_, _, _) -> ok.

-else.

-spec begins(id(), module(), site(), how(), context()) -> ok.
begins(_, _, _, _, _) -> ok.

-spec callback_exception(id(), module(), site(), error | exit | throw, term(), [term()], how(), context()) -> ok.
callback_exception(Id, M, S, Kind, Reason, Stack, _, _) -> exception(Id, M, S, Kind, Reason, Stack).

-spec callback(id(), module(), site(), how(), context(), term()) -> ok.
callback(Id, M, S, _, _, Result) -> leave(Id, M, S, Result).

-spec callback_tail(id(), module(), site(), how(), context()) -> ok.
callback_tail(Id, M, S, _, _) -> tail(Id, M, S).

-spec continues(id(), module(), site()) -> ok.
continues(_, _, _) -> ok.

-spec locals(module(), site(), [{atom(), term()}], pos_integer()) -> ok.
locals(_, _, _, _) -> ok.

-endif.
