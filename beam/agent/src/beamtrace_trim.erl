%% Payloads: a term cut to a byte limit and redacted, then encoded. Time and memory are bounded by the limit,
%% not by the term: what does not fit is never visited (docs/agent-protocol.md, "Payload").
-module(beamtrace_trim).

-export([encode/3, trim/3]).

-define(TRIMMED, '[trimmed]').
-define(REDACTED, '[redacted]').
%% Nesting below this is cut.
-define(DEPTH_MAX, 64).
%% What an integer, a float or the header of a container takes at most in external format.
-define(HEADER_BYTES, 9).

-type redact() :: #{atom() | binary() => true}.
-export_type([redact/0]).

%% External term format of the trimmed term.
-spec encode(term(), non_neg_integer(), redact()) -> binary().
encode(Term, MaxBytes, Redact) ->
    term_to_binary(trim(Term, MaxBytes, Redact), [{minor_version, 2}]).

-spec trim(term(), non_neg_integer(), redact()) -> term().
trim(Term, MaxBytes, Redact) ->
    {Trimmed, _Left} = walk(Term, MaxBytes, ?DEPTH_MAX, Redact),
    Trimmed.

%% Returns the trimmed term and how many bytes are left.
walk(_, Left, _, _) when Left =< 0 -> {?TRIMMED, Left};
%% Counted, for else there would be no end of what is too deep.
walk(_, Left, 0, _) -> {?TRIMMED, Left - ?HEADER_BYTES};
walk(T, Left, _, _) when is_atom(T); is_float(T); is_pid(T); is_port(T); is_reference(T) ->
    {T, Left - erlang:external_size(T)};
walk(T, Left, _, _) when is_integer(T) ->
    case erlang:external_size(T) of
        %% Nothing is shown behind it: the native tracer does not know how much is left when it comes to it.
        Size when Size > Left, Size > ?HEADER_BYTES -> {?TRIMMED, 0};
        Size -> {T, Left - Size}
    end;
walk(T, Left, _, _) when is_binary(T) ->
    Cut = binary:copy(binary:part(T, 0, min(byte_size(T), max(0, Left - ?HEADER_BYTES)))),
    {Cut, Left - ?HEADER_BYTES - byte_size(Cut)};
walk(T, Left, _, _) when is_bitstring(T) ->
    Bits = min(bit_size(T), max(0, Left - ?HEADER_BYTES) * 8),
    <<Cut:Bits/bitstring, _/bitstring>> = T,
    {Cut, Left - ?HEADER_BYTES - (Bits + 7) div 8};
walk([], Left, _, _) -> {[], Left - 1};
walk([_ | _] = T, Left, Depth, Redact) -> list(T, [], Left - ?HEADER_BYTES, Depth - 1, Redact);
walk({Key, Value}, Left, Depth, Redact) -> pair(Key, Value, Left - ?HEADER_BYTES, Depth - 1, Redact);
walk(T, Left, Depth, Redact) when is_tuple(T) -> tuple(T, 1, [], Left - ?HEADER_BYTES, Depth - 1, Redact);
walk(T, Left, Depth, Redact) when is_map(T) ->
    map(maps:next(maps:iterator(T)), #{}, Left - ?HEADER_BYTES, Depth - 1, Redact);
walk(T, Left, Depth, Redact) when is_function(T) ->
    case erlang:fun_info(T, type) of
        {type, external} ->
            {T, Left - 3 * ?HEADER_BYTES};
        {type, local} ->
            %% The environment may hold anything; name the fun instead.
            {module, Module} = erlang:fun_info(T, module),
            {name, Name} = erlang:fun_info(T, name),
            {arity, Arity} = erlang:fun_info(T, arity),
            walk({'[fun]', Module, Name, Arity}, Left, Depth, Redact)
    end;
walk(T, Left, _, _) ->
    %% Terms of later releases.
    case erlang:external_size(T) of
        Size when Size > Left -> {?TRIMMED, Left - ?HEADER_BYTES};
        Size -> {T, Left - Size}
    end.

list([Head | Tail], Acc, Left, Depth, Redact) when Left > 0 ->
    {H, Left1} = walk(Head, Left, Depth, Redact),
    list(Tail, [H | Acc], Left1, Depth, Redact);
list([], Acc, Left, _, _) -> {lists:reverse(Acc), Left};
list([_ | _], Acc, Left, _, _) -> {lists:reverse(Acc, [?TRIMMED]), Left};
list(Tail, Acc, Left, Depth, Redact) ->
    {T, Left1} = walk(Tail, Left, Depth, Redact),
    {lists:reverse(Acc, T), Left1}.

pair(Key, Value, Left, Depth, Redact) when is_map_key(Key, Redact) ->
    {K, Left1} = walk(Key, Left, Depth, Redact),
    {redacted(K, Value), Left1 - ?HEADER_BYTES};
pair(Key, Value, Left, Depth, Redact) ->
    {K, Left1} = walk(Key, Left, Depth, Redact),
    {V, Left2} = walk(Value, Left1, Depth, Redact),
    {{K, V}, Left2}.

redacted(Key, _Value) -> {Key, ?REDACTED}.

tuple(T, I, Acc, Left, _, _) when I > tuple_size(T) -> {list_to_tuple(lists:reverse(Acc)), Left};
tuple(_, _, Acc, Left, _, _) when Left =< 0 -> {list_to_tuple(lists:reverse(Acc, [?TRIMMED])), Left};
tuple(T, I, Acc, Left, Depth, Redact) ->
    {E, Left1} = walk(element(I, T), Left, Depth, Redact),
    tuple(T, I + 1, [E | Acc], Left1, Depth, Redact).

map(none, Acc, Left, _, _) -> {Acc, Left};
map(_, Acc, Left, _, _) when Left =< 0 -> {Acc#{?TRIMMED => ?TRIMMED}, Left};
map({Key, Value, Iterator}, Acc, Left, Depth, Redact) ->
    {{K, V}, Left1} = pair(Key, Value, Left - 1, Depth, Redact),
    map(maps:next(Iterator), Acc#{K => V}, Left1, Depth, Redact).
