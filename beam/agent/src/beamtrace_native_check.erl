%% Proves, once after the library is loaded, that it reads terms of this VM as the VM itself describes them: identities against the
%% external term format, shapes and initial calls against the portable tracer's code. A VM that lays its terms out
%% differently is not traced natively; nothing is assumed of a release. The library looks before it reads here, so that a pointer that is none
%% is an error, too, not the node's end.
-module(beamtrace_native_check).

-export([check/0]).

-include("beamtrace_schema.hrl").

-define(FLAG_ALIAS, 4).
-define(FLAG_WIDE_PID, 16).
-define(FLAG_WIDE_PORT, 32).
-define(CREATION, 16#a1b2c3d4).

-spec check() -> ok | {error, {layout, term()}}.
check() ->
    Otp = list_to_integer(erlang:system_info(otp_release)),
    case {erlang:system_info({wordsize, internal}), <<1:32/native>>} of
        {8, <<1:32/little>>} ->
            try
                ok = beamtrace_nif:layout(Otp, alias_has_process(), pid_bits(), port_bits(), {latin1(), wide_ports()}),
                first([fun shapes/0, fun args/0, fun identities/0, fun initial_calls/0, fun contents/0])
            catch
                error:Reason -> {error, {layout, Reason}}
            end;
        Other ->
            {error, {layout, Other}}
    end.

alias_has_process() ->
    Alias = erlang:alias(),
    _ = erlang:unalias(Alias),
    count(Alias) =:= 5.

%% Whether atoms count for what they took in Latin-1, and whether every port is told by 64 bits.
latin1() -> erlang:external_size(a) =:= 5.
wide_ports() -> tag(remote_port(1)) =:= 120.

first([Check | Checks]) ->
    case [Wrong || {_, Same} = Wrong <- Check(), not Same] of
        [] -> first(Checks);
        [{What, false} | _] -> {error, {layout, beamtrace_trim:trim(What, 256, #{})}}
    end;
first([]) ->
    ok.

shapes() -> [{{shape, Term}, beamtrace_nif:shape(Term) =:= beamtrace_shape:of_term(Term)} || Term <- terms()].

args() -> [{{args, Args}, beamtrace_nif:args(Args) =:= beamtrace_shape:of_args(Args)} || Args <- [[], [a], [{b, 1}, c, d], [1, {}]]].

terms() ->
    Small = list_to_binary(lists:seq(1, 20)),
    Large = binary:copy(<<7>>, 1000),
    Part = cut(3, 61, Small),
    Aligned = cut(8, 4000, Large),
    Skewed = cut(5, 4000, Large),
    Odd = cut(5, 4001, Large),
    {ok, Struct} = {ok, maps:from_list([{'__struct__', ?MODULE}, {a, 1}])},
    [
        [],
        [1],
        apply(erlang, '++', [[1], 2]),
        lists:seq(1, 100),
        ok,
        'true',
        0,
        -1,
        1 bsl 58,
        1 bsl 70,
        -(1 bsl 70),
        1.5,
        self(),
        make_ref(),
        hd(erlang:ports()),
        fun() -> Small end,
        fun erlang:self/0,
        {},
        {1},
        {a},
        {a, b},
        {a, {b, 1}, 2},
        {1, {b, 1}, 2, 3},
        {'$gen_call', {self(), a}, {request, 1}},
        {'$gen_cast', request},
        list_to_tuple(lists:seq(1, 5000)),
        <<>>,
        Small,
        Large,
        Part,
        Aligned,
        Skewed,
        Odd,
        <<1:1>>,
        #{},
        #{a => 1},
        Struct,
        Struct#{'__struct__' := 1},
        maps:from_list([{I, I} || I <- lists:seq(1, 100)]),
        maps:from_list([{'__struct__', ?MODULE} | [{I, I} || I <- lists:seq(1, 100)]]),
        remote_pid(1, 2),
        remote_ref([1, 2, 3]),
        remote_port(5)
    ].

%% Sizes that the compiler does not know: OTP 29 refuses what OTP 25 makes of some that it knows, here and below.
cut(Skip, Bits, Binary) ->
    <<_:Skip/bitstring, Part:Bits/bitstring, _/bitstring>> = Binary,
    Part.

%% Contents against the portable tracer's code: terms of each kind, whole and cut at each place.
contents() ->
    Redact = #{key => true, <<"key">> => true},
    Terms = content_terms(),
    Sizes = [16, 30, 50, 100, 500, 1000, 4096],
    [{{contents, Term}, beamtrace_nif:readable(Term) andalso all_shown(Term, Sizes, Redact)} || Term <- Terms].

all_shown(Term, Sizes, Redact) ->
    lists:all(fun(Max) -> shown(Term, Max, Redact) =:= beamtrace_trim:trim(Term, Max, Redact) end, Sizes).

shown(Term, Max, Redact) -> shown(Term, beamtrace_contents:wanted({bytes, Max, Redact}), [], 2).

shown(Term, Wanted, Names, Left) ->
    case beamtrace_nif:show(Term, Wanted, Names) of
        {funs, Funs} when Left > 0 -> shown(Term, Wanted, [{Fun, beamtrace_contents:fun_name(Fun)} || Fun <- Funs], Left - 1);
        {funs, _} -> no_name;
        Shown -> binary_to_term(Shown)
    end.

content_terms() ->
    Small = list_to_binary(lists:seq(1, 20)),
    Refc = binary:copy(list_to_binary(lists:seq(1, 100)), 2),
    Pairs = [{I, I} || I <- lists:seq(1, 40)],
    [
        [a, 'true', [], {}, #{}, 'été'],
        [0, 255, 256, -1, 1 bsl 31, -(1 bsl 31) - 1, 1 bsl 58, -(1 bsl 58), 1 bsl 70, -(1 bsl 70), 1 bsl 200],
        {1 bsl 300, -1.5, 1.5},
        lists:seq(1, 50),
        apply(erlang, '++', [[a, b], c]),
        list_to_tuple(lists:seq(1, 100)),
        {self(), hd(erlang:ports()), make_ref(), erlang:make_ref()},
        {remote_pid(5, 6), remote_port(7), remote_ref([1, 2, 3]), remote_ref([1, 2, 3, 4, 5])},
        resource(),
        %% What each counts for shows in how many there are.
        lists:duplicate(60, a),
        lists:duplicate(60, hd(erlang:ports())),
        lists:duplicate(60, self()),
        appended(300),
        {Small, Refc, cut(3, 61, Small), cut(8, 800, Refc), cut(5, 800, Refc), cut(5, 801, Refc), <<>>, <<1:1>>},
        #{a => 1, {b} => [c], "list" => 1.5, <<"key">> => secret, key => secret},
        [{key, secret}, {<<"key">>, secret}, {open, said}],
        maps:from_list(Pairs),
        maps:from_list([{cut(4, 8 * N, Refc), N} || {N, _} <- Pairs]),
        nested(70),
        fun lists:map/2,
        [fun() -> Small end, fun local_fun/2]
    ].

%% One that the VM may still append to in place.
appended(N) -> lists:foldl(fun(I, Acc) -> <<Acc/binary, I>> end, <<>>, lists:seq(1, N)).

nested(0) -> [];
nested(N) when N rem 2 =:= 0 -> {nested(N - 1)};
nested(N) -> #{N => nested(N - 1)}.

%% A reference that the VM uses for things of its own.
resource() -> atomics:new(1, []).

identities() ->
    Fixed =
        [
            {self(), local(self(), 88)},
            {hd(erlang:ports()), local(hd(erlang:ports()), 120)},
            {make_ref(), false},
            {remote_pid(16#123456, 16#789abc), {16#1234563, 16#789abc, {0, 0, 0}, 0, remote_node(), ?CREATION}},
            {remote_pid(16#f0123456, 7), {16#f0123456, 7, {0, 0, 0}, ?FLAG_WIDE_PID, remote_node(), ?CREATION}},
            {remote_port(16#1122), {16#11227, 0, {0, 0, 0}, 0, remote_node(), ?CREATION}},
            {
                remote_port(16#1122334455667788),
                {16#55667788, 16#11223344, {0, 0, 0}, ?FLAG_WIDE_PORT, remote_node(), ?CREATION}
            },
            {remote_ref([1, 2, 3]), {0, 0, {1, 2, 3}, ?FLAG_ALIAS, remote_node(), ?CREATION}},
            {remote_ref([1, 2, 3, 4, 5]), {4, 5, {1, 2, 3}, ?FLAG_ALIAS, remote_node(), ?CREATION}},
            {atom, false},
            {{name, node}, false},
            {<<1, 2, 3>>, false},
            {[self()], false}
        ],
    Tests =
        Fixed ++
        [{Pid, local(Pid, 88)} || Pid <- lists:sublist(erlang:processes(), 200)] ++
        [{Port, local(Port, 120)} || Port <- lists:sublist(erlang:ports(), 200)] ++
        [{Pid, local(Pid, 88)} || _ <- lists:seq(1, 200), Pid <- random_pid()],
    [{{identity, Term}, same(Term, Expected, beamtrace_nif:identity(Term))} || {Term, Expected} <- Tests] ++
        [{{identity, alias}, own_alias()}].

%% Where the table of processes is a few bits wide only, the number of a process that does not exist may be out of range.
random_pid() ->
    possible(fun() -> local_pid(rand:uniform(1 bsl 15) - 1, rand:uniform(1 bsl 13) - 1) end).

same(Term, false, Read) when is_reference(Term) ->
    {N0, N1, N2} = numbers(Term),
    Read =:= {0, 0, {N0, N1, N2}, ?FLAG_ALIAS, 0, 0};
same(_, Expected, Read) ->
    Expected =:= Read.

%% The process behind an alias is not in every release's external format.
own_alias() ->
    Alias = erlang:alias(),
    _ = erlang:unalias(Alias),
    case count(Alias) of
        3 ->
            beamtrace_nif:identity(Alias) =:= {0, 0, numbers(Alias), ?FLAG_ALIAS, 0, 0};
        5 ->
            [_, _, _, Low, High] = words(Alias),
            beamtrace_nif:identity(Alias) =:= {Low, High, numbers(Alias), ?FLAG_ALIAS, 0, 0}
    end.

%% Processes and ports of this node with a single bit of their number set; the first has none. No such process need exist.
pid_bits() ->
    Bits = [{1 bsl Bit, 0} || Bit <- lists:seq(0, 27)] ++ [{0, 1 bsl Bit} || Bit <- lists:seq(0, 31)],
    [local_pid(0, 0) | [{Pid, Id bsl 4, Serial} || {Id, Serial} <- Bits, Pid <- possible(fun() -> local_pid(Id, Serial) end)]].

port_bits() ->
    Bits = [1 bsl Bit || Bit <- lists:seq(0, 59)],
    [
        local_port(0)
        | [{Port, (N bsl 4) band 16#ffffffff, N bsr 28} || N <- Bits, Port <- possible(fun() -> local_port(N) end)]
    ].

%% Not every release has as many bits.
possible(Make) ->
    try
        [Make()]
    catch
        error:badarg -> []
    end.

local_pid(Id, Serial) ->
    local_term(12, self(), <<Id:32, Serial:32>>).

local_port(Number) ->
    Port = hd(erlang:ports()),
    case tag(Port) of
        120 -> local_term(12, Port, <<Number:64>>);
        89 when Number < 1 bsl 28 -> local_term(8, Port, <<Number:32>>);
        89 -> error(badarg)
    end.

%% The term with other numbers, and the creation that it has.
local_term(Size, Like, Numbers) ->
    Bytes = external(Like),
    Head = binary:part(Bytes, 0, byte_size(Bytes) - Size),
    Creation = binary:part(Bytes, byte_size(Bytes), -4),
    binary_to_term(<<Head/binary, Numbers/binary, Creation/binary>>).

%% As the external term format says.
local(Item, 88) ->
    88 = tag(Item),
    {number(12, 4, Item) bsl 4 bor 3, number(8, 4, Item), {0, 0, 0}, 0, 0, 0};
local(Item, 120) ->
    Number =
        case tag(Item) of
            120 -> number(12, 8, Item);
            89 -> number(8, 4, Item)
        end,
    {(Number bsl 4 bor 7) band 16#ffffffff, Number bsr 28, {0, 0, 0}, 0, 0, 0}.

%% In the external format the numbers stand in the order of memory.
numbers(Ref) ->
    [N0, N1, N2 | _] = words(Ref),
    {N0, N1, N2}.

%% 131, 90, count of words (16 bits), node, creation, words.
count(Ref) -> binary:decode_unsigned(binary:part(external(Ref), 2, 2)).

words(Ref) -> [number(4 * N, 4, Ref) || N <- lists:seq(count(Ref), 1, -1)].

%% The number in so many bytes that stand so far from the end.
number(FromEnd, Size, Item) ->
    Bytes = external(Item),
    binary:decode_unsigned(binary:part(Bytes, byte_size(Bytes) - FromEnd, Size)).

tag(Item) -> binary:at(external(Item), 1).

external(Item) -> term_to_binary(Item, [{minor_version, 2}]).

%% Terms of another incarnation of this node, so that no new atom is made; a creation that it does not have.
remote_node() -> node().
remote_pid(Id, Serial) -> remote(<<88>>, <<Id:32, Serial:32, ?CREATION:32>>).
remote_port(Number) -> remote(<<120>>, <<Number:64, ?CREATION:32>>).
remote_ref(Numbers) ->
    remote(<<90, (length(Numbers)):16>>, <<?CREATION:32, (<<<<N:32>> || N <- Numbers>>)/binary>>).

remote(Head, Tail) ->
    Atom = external(node()),
    Node = binary:part(Atom, 1, byte_size(Atom) - 1),
    binary_to_term(<<131, Head/binary, Node/binary, Tail/binary>>).

initial_calls() ->
    X = self(),
    Calls =
        [
            {lists, seq, [1, 2]},
            {proc_lib, init_p, [X, [], fun() -> X end]},
            {proc_lib, init_p, [X, [], fun local_fun/2]},
            {proc_lib, init_p, [X, [], fun lists:map/2]},
            {proc_lib, init_p, [X, [], lists, seq, [1, 2]]},
            {proc_lib, init_p, [X, [], gen, init_it, [gen_server, X, X, a_module, [], []]]},
            {proc_lib, init_p, [X, [], gen, init_it, [gen_server, X, X, {local, n}, a_module, [], []]]},
            {proc_lib, init_p, [X, [], gen, init_it, [gen_server, X, X, supervisor, {n, a_module, []}, []]]},
            {proc_lib, init_p, [X, [], gen, init_it, [gen_server, X, X, {local, n}, supervisor, {n, a_module, []}, []]]},
            {proc_lib, init_p, [X, [], gen, init_it, [gen_event, X, X, 1, 2]]},
            {erlang, apply, [fun(A, B) -> {A, B, X} end, [1, 2]]},
            {erlang, apply, [lists, seq, [1, 2]]},
            {erlang, apply, [1, []]}
        ],
    %% The name of a local fun is not read: the native tracer reports no initial call there.
    [{{initial_call, M, F}, beamtrace_nif:initial_call(M, F, A) =:= without_fun({M, F, A})} || {M, F, A} <- Calls].

without_fun({_, _, Args} = Call) ->
    case [Fun || Fun <- Args, is_function(Fun), erlang:fun_info(Fun, type) =:= {type, local}] of
        [] -> beamtrace_event:initial_call(Call);
        _ -> {0, 0, 0}
    end.

local_fun(A, B) -> {A, B}.
