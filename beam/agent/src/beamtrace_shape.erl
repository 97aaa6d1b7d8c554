%% The shape of a term: its type, its size and its leading atoms. Bounded time, whatever the term
%% (docs/agent-protocol.md, "Shape").
-module(beamtrace_shape).

-export([of_term/1, of_args/1, leading/1]).

-include("beamtrace_schema.hrl").

-type tag() :: atom() | 0.
-type shape() :: {non_neg_integer(), tag(), tag()}.
-export_type([shape/0, tag/0]).

-define(SHAPE(Type, Size), ((Type) bor ((Size) bsl 4))).

%% Shape of a message, a return value, an exit reason.
-spec of_term(term()) -> shape().
of_term(T) when is_tuple(T) ->
    case T of
        {'$gen_call', _, Request} -> {?SHAPE(?SHAPE_TUPLE, 3), '$gen_call', leading(Request)};
        {'$gen_cast', Request} -> {?SHAPE(?SHAPE_TUPLE, 2), '$gen_cast', leading(Request)};
        {A, B} -> {?SHAPE(?SHAPE_TUPLE, 2), atom_of(A), leading(B)};
        {A, B, _} -> {?SHAPE(?SHAPE_TUPLE, 3), atom_of(A), leading(B)};
        {} -> {?SHAPE(?SHAPE_TUPLE, 0), 0, 0};
        {A} -> {?SHAPE(?SHAPE_TUPLE, 1), atom_of(A), 0};
        _ ->
            Shape = ?SHAPE(?SHAPE_TUPLE, tuple_size(T)),
            {Shape, atom_of(element(1, T)), leading(element(2, T))}
    end;
of_term(T) when is_atom(T) -> {?SHAPE_ATOM, T, 0};
of_term(T) when is_binary(T) -> {?SHAPE(?SHAPE_BINARY, capped(byte_size(T))), 0, 0};
of_term([]) -> {?SHAPE_NIL, 0, 0};
of_term([_ | Rest]) -> {?SHAPE(?SHAPE_LIST, count(Rest, 1)), 0, 0};
of_term(#{'__struct__' := Module} = T) when is_atom(Module) ->
    {?SHAPE(?SHAPE_MAP, capped(map_size(T))), Module, 0};
of_term(T) when is_map(T) -> {?SHAPE(?SHAPE_MAP, capped(map_size(T))), 0, 0};
of_term(T) when is_integer(T) -> {?SHAPE_INTEGER, 0, 0};
of_term(T) when is_pid(T) -> {?SHAPE_PID, 0, 0};
of_term(T) when is_reference(T) -> {?SHAPE_REFERENCE, 0, 0};
of_term(T) when is_float(T) -> {?SHAPE_FLOAT, 0, 0};
of_term(T) when is_function(T) -> {?SHAPE_FUN, 0, 0};
of_term(T) when is_port(T) -> {?SHAPE_PORT, 0, 0};
of_term(T) when is_bitstring(T) -> {?SHAPE(?SHAPE_BITSTRING, capped(bit_size(T))), 0, 0};
of_term(_) -> {?SHAPE_OTHER, 0, 0}.

%% Shape of the arguments of a call: the arity, and the leading atoms of the first two.
-spec of_args([term()]) -> shape().
of_args([]) -> {?SHAPE_ARGS, 0, 0};
of_args([A]) -> {?SHAPE(?SHAPE_ARGS, 1), leading(A), 0};
of_args([A, B]) -> {?SHAPE(?SHAPE_ARGS, 2), leading(A), leading(B)};
of_args([A, B | _] = Args) -> {?SHAPE(?SHAPE_ARGS, length(Args)), leading(A), leading(B)}.

%% The atom a term begins with, or 0.
-spec leading(term()) -> tag().
leading(T) when is_atom(T) -> T;
leading(T) when is_tuple(T), tuple_size(T) > 0, is_atom(element(1, T)) -> element(1, T);
leading(_) -> 0.

atom_of(T) when is_atom(T) -> T;
atom_of(_) -> 0.

count([_ | Rest], N) when N < ?SHAPE_LIST_MAX -> count(Rest, N + 1);
count(_, N) -> N.

capped(Size) when Size > ?SHAPE_SIZE_MAX -> ?SHAPE_SIZE_MAX;
capped(Size) -> Size.
